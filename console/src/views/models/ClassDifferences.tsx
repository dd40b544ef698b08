/** The top-1 of two models for each class, with the difference as a bar to the left or right. */
import { Group, SegmentedControl, Stack, Table, Text, useMatches } from "@mantine/core";
import { useMemo, useState } from "react";
import { integer, percent } from "../../app/format";
import { visible } from "../../app/labels";
import { compareModelsRoute } from "../../app/router";
import { SERIES } from "../../app/theme";
import { TextLink } from "../../ui/links";
import { right } from "../../ui/ScrollTable";
import { points } from "./metrics";
import { difference, sortClasses, type ClassOrder, type ClassRow } from "./perClass";
import { VirtualTable } from "./VirtualTable";

const BAR = 150;
/** The element with the images, which the link of a class shows. */
export const IMAGES = "compared-images";

export function ClassDifferences({ rows, names }: { rows: ClassRow[]; names: string[] }) {
  const [order, setOrder] = useState<ClassOrder>("difference");
  const sorted = useMemo(() => sortClasses(rows, order), [rows, order]);
  const most = useMemo(() => Math.max(...rows.map((row) => Math.abs(difference(row) ?? 0)), 0.01), [rows]);
  const [first, second] = [visible(names[0] ?? "first", 60), visible(names[1] ?? "second", 60)];
  const orientation = useMatches<"vertical" | "horizontal">({ base: "vertical", sm: "horizontal" });
  const hasImages = rows.some((row) => row.images !== null);
  return (
    <Stack gap="sm">
      <Group justify="space-between">
        <Text size="sm" className="user-text">
          To the left {second} is better, to the right {first}.
        </Text>
        <SegmentedControl
          size="xs"
          orientation={orientation}
          aria-label="Order of the classes"
          value={order}
          onChange={(value) => setOrder(value)}
          data={[
            { value: "difference", label: "Second better" },
            { value: "gain", label: "First better" },
            { value: "worst", label: "First worst" },
            { value: "label", label: "Name" },
          ]}
        />
      </Group>
      <VirtualTable
        label="Table of classes"
        columns={[
          "Class",
          hasImages && right("Images"),
          { ...right(first), className: "user-text" },
          { ...right(second), className: "user-text" },
          right("Points"),
          { head: "Difference", w: BAR + 20 },
        ]}
        count={sorted.length}
        maxHeight={420}
        minWidth={660}
        rowKey={(index) => sorted[index]!.label}
        row={(index) => <Cells row={sorted[index]!} most={most} hasImages={hasImages} />}
      />
    </Stack>
  );
}

function Cells({ row, most, hasImages }: { row: ClassRow; most: number; hasImages: boolean }) {
  const change = difference(row);
  return (
    <>
      <Table.Th scope="row" fw={400}>
        {hasImages ? (
          <TextLink
            inherit
            from={compareModelsRoute.fullPath}
            to="."
            search={(before) => ({ ...before, label: row.label })}
            replace
            resetScroll={false}
            className="user-text"
            title="Show the images of this class"
            onClick={showImages}
          >
            {visible(row.label, 200)}
          </TextLink>
        ) : (
          <span className="user-text">{visible(row.label, 200)}</span>
        )}
      </Table.Th>
      {hasImages && <Table.Td ta="right">{integer(row.images)}</Table.Td>}
      <Table.Td ta="right">{percent(row.shares[0])}</Table.Td>
      <Table.Td ta="right">{percent(row.shares[1])}</Table.Td>
      <Table.Td ta="right">{points(change)}</Table.Td>
      <Table.Td>{change !== null && <DifferenceBar change={change} most={most} />}</Table.Td>
    </>
  );
}

function showImages(): void {
  document.getElementById(IMAGES)?.scrollIntoView({ block: "start" });
}

function DifferenceBar({ change, most }: { change: number; most: number }) {
  const length = (Math.abs(change) / most) * (BAR / 2 - 2);
  return (
    <svg width={BAR} height={14} aria-hidden style={{ display: "block" }}>
      <rect
        x={change < 0 ? BAR / 2 - length : BAR / 2}
        y={2}
        width={length}
        height={10}
        fill={change < 0 ? SERIES[1] : SERIES[0]}
      />
      <line x1={BAR / 2} x2={BAR / 2} y1={0} y2={14} stroke="var(--mantine-color-dimmed)" />
    </svg>
  );
}
