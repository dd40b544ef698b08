import { Button, Group, Loader, Text } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef } from "react";
import { JobRow } from "./JobRow";
import classes from "./JobTable.module.css";
import type { JobList } from "./useJobList";

/** Pixels, as in the style sheet. */
const ROW_HEIGHT = 52;
/** Rows below those that exist when more are read. */
const NEAR_END = 5;

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
  const nearsEnd = (last?.index ?? -1) >= jobs.length - NEAR_END;
  useEffect(() => {
    if (nearsEnd && hasMore && !isLoadingMore && moreError === null) loadMore();
  }, [nearsEnd, hasMore, isLoadingMore, moreError, loadMore]);

  return (
    <div>
      <div ref={scroller} tabIndex={0} role="region" aria-label="List of jobs" className={classes.scroller}>
        <table className={classes.table} aria-label="Jobs" aria-rowcount={hasMore ? -1 : jobs.length + 1}>
          <Heading count={jobs.length} selected={selected.size} onSelectAll={onSelectAll} />
          <tbody>
            <Space height={first?.start ?? 0} />
            {items.map((item) => {
              const job = jobs[item.index]!;
              return <JobRow key={job.id} job={job} row={item.index} isSelected={selected.has(job.id)} onSelect={onSelect} />;
            })}
            <Space height={virtual.getTotalSize() - (last?.end ?? 0)} />
          </tbody>
        </table>
      </div>
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
    </div>
  );
}

function Space({ height }: { height: number }) {
  if (height <= 0) return null;
  return (
    <tr aria-hidden className={classes.space}>
      <td style={{ height }} />
    </tr>
  );
}

const COLUMNS = [
  { head: "Name" },
  { head: "State", className: classes.stateColumn },
  { head: "Progress", className: classes.progressColumn },
  { head: "Time left", className: `mantine-visible-from-md ${classes.timeColumn}` },
  { head: "Pairs/s", className: `mantine-visible-from-lg ${classes.speedColumn}` },
  { head: "Model", className: `mantine-visible-from-md ${classes.modelColumn}` },
  { head: "Age", className: `mantine-visible-from-sm ${classes.ageColumn}` },
];

function Heading({ count, selected, onSelectAll }: { count: number; selected: number } & Pick<Props, "onSelectAll">) {
  const all = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (all.current !== null) all.current.indeterminate = selected > 0 && selected < count;
  }, [selected, count]);
  return (
    <thead>
      <tr>
        <th scope="col" className={classes.selectColumn}>
          <input
            ref={all}
            type="checkbox"
            className={classes.check}
            aria-label="Select all jobs that are loaded"
            checked={count > 0 && selected === count}
            onChange={(event) => onSelectAll(event.currentTarget.checked)}
          />
        </th>
        {COLUMNS.map(({ head, className }) => (
          <th key={head} scope="col" className={className}>
            {head}
          </th>
        ))}
      </tr>
    </thead>
  );
}
