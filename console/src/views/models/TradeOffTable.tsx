import { Checkbox, Table } from "@mantine/core";
import { useMemo } from "react";
import { percent } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { paretoFront } from "../../ui/scatter/pareto";
import { metricLabel } from "./metrics";
import { COSTS, VERSIONS, type Cost, type Plotted } from "./tradeoff";
import { VirtualTable } from "./VirtualTable";
import { COMPARE, right } from "../../ui/ScrollTable";

interface Props {
  points: Plotted[];
  metric: string;
  cost: Cost;
  selected: string[];
  onToggle: (reference: string) => void;
}

/** The points of the trade-off plot as a table, the best first. */
export function TradeOffTable({ points, metric, cost, selected, onToggle }: Props) {
  const rows = useMemo(() => [...points].sort((a, b) => b.y - a.y), [points]);
  const front = useMemo(
    () => new Set(paretoFront(points.filter((point) => point.group === VERSIONS)).map((point) => point.key)),
    [points],
  );
  return (
    <VirtualTable
      label="Models of the plot"
      columns={[COMPARE, "Model", "Kind", right(metricLabel(metric)), right(COSTS[cost].label), "Pareto front"]}
      count={rows.length}
      maxHeight={380}
      minWidth={640}
      rowKey={(index) => rows[index]!.key}
      row={(index) => {
        const point = rows[index]!;
        return (
          <>
            <Table.Td>
              {point.group === VERSIONS && (
                <Checkbox
                  size="xs"
                  aria-label={`Compare ${point.label}`}
                  checked={selected.includes(point.label)}
                  onChange={() => onToggle(point.label)}
                />
              )}
            </Table.Td>
            <Table.Th scope="row">
              <Name point={point} />
            </Table.Th>
            <Table.Td>{point.group}</Table.Td>
            <Table.Td ta="right">{percent(point.y)}</Table.Td>
            <Table.Td ta="right">{COSTS[cost].format(point.x)}</Table.Td>
            <Table.Td>{front.has(point.key) ? "yes" : ""}</Table.Td>
          </>
        );
      }}
    />
  );
}

function Name({ point }: { point: Plotted }) {
  if (point.version === null) return <span className="user-text">{visible(point.label)}</span>;
  return (
    <TextLink
      inherit
      to="/models/$name"
      params={{ name: point.version.name }}
      search={{ version: point.version.version }}
      className="user-text"
    >
      {visible(point.label)}
    </TextLink>
  );
}
