import { Table, type TableProps } from "@mantine/core";
import type { ReactNode } from "react";

interface Props extends TableProps {
  /** Its name as a region, which the keyboard can scroll. */
  label: string;
  minWidth: number;
  columns: string[];
  /** Rows. */
  children: ReactNode;
}

/** A table that scrolls sideways by itself where the window is narrow. */
export function ScrollTable({ label, minWidth, columns, children, ...table }: Props) {
  return (
    <Table.ScrollContainer
      minWidth={minWidth}
      scrollAreaProps={{ viewportProps: { tabIndex: 0, role: "region", "aria-label": label } }}
    >
      <Table {...table}>
        <Table.Thead>
          <Table.Tr>
            {columns.map((column) => (
              <Table.Th key={column} scope="col">
                {column}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>{children}</Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
