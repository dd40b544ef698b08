import { ScrollArea, Table } from "@mantine/core";
import { useMemo } from "react";
import { significant } from "../../app/format";
import { visible } from "../../app/labels";
import { align, type Curve } from "./align";
import { rows } from "./summary";

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
      <Table aria-label={title} stickyHeader fz="xs">
        <Table.Thead>
          <Table.Tr>
            <Table.Th scope="col">{xLabel}</Table.Th>
            {curves.map((curve, place) => (
              <Table.Th key={place} scope="col" className="user-text">
                {visible(curve.label)}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
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
        </Table.Tbody>
      </Table>
    </ScrollArea>
  );
}
