import { Box, Button, Checkbox, Group, Loader, Table, Text } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, type ReactNode } from "react";
import { JobRow, ROW_HEIGHT } from "./JobRow";
import type { JobList } from "./useJobList";
import { TableHead, type Columns } from "../../../ui/ScrollTable";

interface Props {
  list: JobList;
  selected: ReadonlySet<string>;
  onSelect: (id: string, isSelected: boolean) => void;
  onSelectAll: (isSelected: boolean) => void;
}

/** All jobs as one table, of which only the rows in sight exist; more are read as it is scrolled. */
export function JobTable({ list, selected, onSelect, onSelectAll }: Props) {
  const { jobs, hasMore, isLoadingMore, moreError, loadMore } = list;
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: jobs.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_HEIGHT,
    overscan: 10,
  });
  const items = virtual.getVirtualItems();
  const first = items[0];
  const last = items.at(-1);
  const nearsEnd = (last?.index ?? -1) >= jobs.length - 30;
  useEffect(() => {
    if (nearsEnd && hasMore && !isLoadingMore && moreError === null) loadMore();
  }, [nearsEnd, hasMore, isLoadingMore, moreError, loadMore]);

  return (
    <Box>
      <Box
        ref={scroller}
        tabIndex={0}
        role="region"
        aria-label="List of jobs"
        style={{ overflowY: "auto", maxHeight: "max(320px, calc(100dvh - 270px))" }}
      >
        <Table layout="fixed" stickyHeader aria-label="Jobs" aria-rowcount={hasMore ? -1 : jobs.length + 1}>
          <TableHead columns={columns(<SelectAll count={jobs.length} selected={selected.size} onSelectAll={onSelectAll} />)} />
          <Table.Tbody>
            <Space height={first?.start ?? 0} />
            {items.map((item) => {
              const job = jobs[item.index]!;
              return <JobRow key={job.id} job={job} row={item.index} isSelected={selected.has(job.id)} onSelect={onSelect} />;
            })}
            <Space height={virtual.getTotalSize() - (last?.end ?? 0)} />
          </Table.Tbody>
        </Table>
      </Box>
      <Group gap="xs" mt={6} mih={22}>
        <Text size="xs" c="dimmed" role="status">
          {jobs.length.toLocaleString()} {hasMore ? "jobs so far; scroll for more" : jobs.length === 1 ? "job" : "jobs"}
        </Text>
        {isLoadingMore && <Loader size={14} role="img" aria-label="Loading more jobs" />}
        {moreError !== null && !isLoadingMore && (
          <Button size="compact-xs" variant="default" onClick={loadMore}>
            Load more
          </Button>
        )}
      </Group>
    </Box>
  );
}

function Space({ height }: { height: number }) {
  if (height <= 0) return null;
  return (
    <Table.Tr aria-hidden style={{ border: 0 }}>
      <Table.Td p={0} h={height} />
    </Table.Tr>
  );
}

function columns(all: ReactNode): Columns {
  return [
    { head: all, w: 42 },
    "Name",
    { head: "State", w: { base: 104, xs: 124 } },
    { head: "Progress", w: { base: 90, xs: 210 } },
    { head: "Time left", w: 116, visibleFrom: "md" },
    { head: "Pairs/s", w: 130, visibleFrom: "lg" },
    { head: "Model", w: 170, visibleFrom: "md" },
    { head: "Age", w: 104, visibleFrom: "sm" },
  ];
}

function SelectAll({ count, selected, onSelectAll }: { count: number; selected: number } & Pick<Props, "onSelectAll">) {
  return (
    <Checkbox
      size="xs"
      aria-label="Select all jobs that are loaded"
      checked={count > 0 && selected === count}
      indeterminate={selected > 0 && selected < count}
      onChange={(event) => onSelectAll(event.currentTarget.checked)}
    />
  );
}
