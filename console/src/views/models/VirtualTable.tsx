/** A table of which only the rows in view are in the document, for lists of any length. */
import { Table } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useRef, type ReactNode } from "react";
import { TableHead, type Columns } from "../../ui/ScrollTable";

interface Props {
  /** What the rows are, for screen readers. */
  label: string;
  columns: Columns;
  count: number;
  row: (index: number) => ReactNode;
  rowKey: (index: number) => string;
  rowHeight?: number;
  maxHeight?: number | string;
  minWidth?: number;
}

export function VirtualTable({ label, columns, count, row, rowKey, rowHeight = 37, maxHeight = 520, minWidth = 0 }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 8,
    getItemKey: rowKey,
  });
  const items = rows.getVirtualItems();
  const above = items[0]?.start ?? 0;
  const below = rows.getTotalSize() - (items.at(-1)?.end ?? 0);
  return (
    <div
      ref={scroller}
      role="region"
      aria-label={label}
      tabIndex={0}
      style={{ maxHeight, overflow: "auto", overflowAnchor: "none" }}
    >
      <Table stickyHeader highlightOnHover aria-rowcount={count + 1} miw={minWidth}>
        <TableHead columns={columns} aria-rowindex={1} />
        <Table.Tbody>
          <Gap height={above} columns={columns.length} />
          {items.map((item) => (
            <Table.Tr key={item.key} data-index={item.index} ref={rows.measureElement} aria-rowindex={item.index + 2}>
              <Cells row={row} index={item.index} />
            </Table.Tr>
          ))}
          <Gap height={below} columns={columns.length} />
        </Table.Tbody>
      </Table>
    </div>
  );
}

/** Scrolling renders rows that come into view only: the function that makes them stays the same. */
const Cells = memo(function Cells({ row, index }: { row: (index: number) => ReactNode; index: number }) {
  return <>{row(index)}</>;
});

/** The room of the rows that are not in the document. */
function Gap({ height, columns }: { height: number; columns: number }) {
  if (height <= 0) return null;
  return (
    <tr aria-hidden>
      <td colSpan={columns} style={{ height, padding: 0, border: 0 }} />
    </tr>
  );
}
