import { Table, VisuallyHidden, type TableProps, type TableThProps, type TableTrProps } from "@mantine/core";
import type { ReactNode } from "react";

export interface Column extends Pick<TableThProps, "ta" | "w" | "visibleFrom" | "className"> {
  /** Empty: a column without a heading. */
  head: ReactNode;
  /** True if its heading is for screen readers only. */
  isHidden?: boolean;
}

/** Headings; what is false is left out. */
export type Columns = readonly (string | Column | false)[];

/** The column of buttons. */
export const ACTIONS: Column = { head: "Actions", isHidden: true };
/** The column of checkboxes that choose rows for a comparison. */
export const COMPARE: Column = { head: "Compare", isHidden: true, w: 44 };

/** A column of numbers. */
export function right(head: string): Column {
  return { head, ta: "right" };
}

export function TableHead({ columns, ...row }: TableTrProps & { columns: Columns }) {
  return (
    <Table.Thead>
      <Table.Tr {...row}>{columns.map((column, place) => column !== false && <HeadCell key={place} column={column} />)}</Table.Tr>
    </Table.Thead>
  );
}

function HeadCell({ column }: { column: string | Column }) {
  const { head, isHidden = false, ...cell } = typeof column === "string" ? { head: column } : column;
  if (head === "") return <Table.Td {...cell} />;
  return (
    <Table.Th scope="col" {...cell}>
      {isHidden ? <VisuallyHidden>{head}</VisuallyHidden> : head}
    </Table.Th>
  );
}

interface Props extends TableProps {
  columns: Columns;
  /** Rows. */
  children: ReactNode;
}

export function DataTable({ columns, children, ...table }: Props) {
  return (
    <Table {...table}>
      <TableHead columns={columns} />
      <Table.Tbody>{children}</Table.Tbody>
    </Table>
  );
}

interface Scroll {
  /** Its name as a region, which the keyboard can scroll. */
  label: string;
  minWidth: number;
}

/** A table that scrolls sideways by itself where the window is narrow. */
export function ScrollTable({ label, minWidth, ...table }: Props & Scroll) {
  return (
    <ScrollRegion label={label} minWidth={minWidth}>
      <DataTable {...table} />
    </ScrollRegion>
  );
}

export function ScrollRegion({ label, minWidth, children }: Scroll & { children: ReactNode }) {
  return (
    <Table.ScrollContainer
      minWidth={minWidth}
      scrollAreaProps={{ viewportProps: { tabIndex: 0, role: "region", "aria-label": label } }}
    >
      {children}
    </Table.ScrollContainer>
  );
}
