/** Two bars for each block of a tower: the heads and the MLP units that were kept, on grey for those before. */
import { Group, Stack, Text, Title } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { integer } from "../../app/format";
import { SERIES } from "../../app/theme";
import { keptOfTower, type BlockRow, type TowerRows } from "./layoutRows";

const ROW = 30;
const BAR = 9;
const LABEL = 74;
const NUMBER = 92;
const HEADS = SERIES[0]!;
const UNITS = SERIES[1]!;
const BEFORE = "light-dark(var(--mantine-color-gray-3), var(--mantine-color-dark-4))";

export function BlockLegend() {
  return (
    <Group gap="md">
      {(
        [
          ["Heads", HEADS],
          ["MLP units", UNITS],
          ["Removed", BEFORE],
        ] as const
      ).map(([name, color]) => (
        <Group key={name} gap={6}>
          <svg width={14} height={10} aria-hidden>
            <rect width={14} height={10} rx={2} style={{ fill: color }} />
          </svg>
          <Text size="sm">{name}</Text>
        </Group>
      ))}
    </Group>
  );
}

export function BlockBars({ tower }: { tower: TowerRows }) {
  const { ref, width } = useElementSize();
  const { heads, units } = keptOfTower(tower);
  const channels =
    tower.width === tower.widthBefore
      ? `${integer(tower.width)} channels`
      : `${integer(tower.width)} of ${integer(tower.widthBefore)} channels`;
  const most = {
    heads: Math.max(...tower.blocks.map((row) => row.allHeads), 1),
    units: Math.max(...tower.blocks.map((row) => row.allUnits), 1),
  };
  return (
    <Stack gap={4} ref={ref}>
      <Title order={3} size="h5">
        {tower.name === "image" ? "Image tower" : "Text tower"}
      </Title>
      <Text size="sm">
        {channels}, {integer(heads[0])} of {integer(heads[1])} heads, {integer(units[0])} of {integer(units[1])} MLP units
      </Text>
      {width > 0 && (
        <svg width={width} height={tower.blocks.length * ROW} role="list" aria-label={`Blocks of the ${tower.name} tower`}>
          {tower.blocks.map((row, place) => (
            <Block key={row.source} row={row} top={place * ROW} room={Math.max(width - LABEL - NUMBER, 40)} most={most} />
          ))}
        </svg>
      )}
    </Stack>
  );
}

function Block({ row, top, room, most }: { row: BlockRow; top: number; room: number; most: { heads: number; units: number } }) {
  const heads = `${integer(row.heads)} of ${integer(row.allHeads)}`;
  const units = `${integer(row.units)} of ${integer(row.allUnits)}`;
  const moved = row.own === row.source ? "" : `; block ${row.own} of this model`;
  const said = `Block ${row.source}: ${row.own === null ? "removed" : `${heads} heads, ${units} MLP units${moved}`}`;
  return (
    <g role="listitem" aria-label={said} fontSize={11} fill="var(--mantine-color-text)">
      <title>{said}</title>
      <text x={0} y={top + 16} fill={row.own === null ? "var(--mantine-color-dimmed)" : "var(--mantine-color-text)"}>
        Block {row.source}
      </text>
      <Bar
        left={LABEL}
        top={top + 3}
        full={(room * row.allHeads) / most.heads}
        kept={(room * row.heads) / most.heads}
        color={HEADS}
      />
      <Bar
        left={LABEL}
        top={top + 4 + BAR}
        full={(room * row.allUnits) / most.units}
        kept={(room * row.units) / most.units}
        color={UNITS}
      />
      <text x={LABEL + room + 6} y={top + 11} fontSize={10}>
        {row.own === null ? "removed" : heads}
      </text>
      <text x={LABEL + room + 6} y={top + 23} fontSize={10}>
        {row.own === null ? "" : units}
      </text>
    </g>
  );
}

function Bar({ left, top, full, kept, color }: { left: number; top: number; full: number; kept: number; color: string }) {
  return (
    <>
      <rect x={left} y={top} width={full} height={BAR} rx={1.5} style={{ fill: BEFORE }} />
      <rect x={left} y={top} width={kept} height={BAR} rx={1.5} fill={color} />
    </>
  );
}
