import { ScrollArea, Table } from "@mantine/core";
import { useMemo } from "react";
import { significant } from "../../app/format";
import { visible } from "../../app/labels";
import { align, type Curve } from "./align";
import { rows } from "./summary";
import { DataTable } from "../ScrollTable";

interface Props {
  title: string;
  curves: Curve[];
  xLabel: string;
  format: (value: number) => string;
  height: number;
}

/** The same numbers as the curves, at some of their steps. */
export function ChartTable({ title, curves, xLabel, format, height }: Props) {
  const shown = useMemo(() => rows(align(curves)), [curves]);
  return (
    <ScrollArea h={height} viewportProps={{ tabIndex: 0, role: "region", "aria-label": title }}>
      <DataTable
        aria-label={title}
        stickyHeader
        fz="xs"
        columns={[xLabel, ...curves.map(({ label }) => ({ head: visible(label), className: "user-text" }))]}
      >
        {shown.map(([x, ...values], row) => (
          <Table.Tr key={row}>
            <Table.Th scope="row" fw={400}>
              {significant(x, 6)}
            </Table.Th>
            {values.map((value, place) => (
              <Table.Td key={place}>{value == null ? "–" : format(value)}</Table.Td>
            ))}
          </Table.Tr>
        ))}
      </DataTable>
    </ScrollArea>
  );
}
