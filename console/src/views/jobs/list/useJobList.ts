import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useState } from "react";
import { LIVE_MS } from "../../../app/queries";
import { ACTIVE } from "../jobState";
import { mergeJobs, outOfDate, type Answers, type ListedJob, type Read } from "./mergeJobs";
import { firstPage, readPage, type Filter } from "./readPage";
import { useSingleJobs } from "./useSingleJobs";
import { advance, type Head, type Trail } from "./trail";

/** The API's largest pages follow the first one. */
const LARGEST_PAGE = 500;
/** Pages of active jobs that are read again at most: beyond that the list is live as far as its first page. */
const ACTIVE_PAGES = 4;

export interface JobList {
  jobs: ListedJob[];
  isPending: boolean;
  error: unknown;
  hasMore: boolean;
  isLoadingMore: boolean;
  moreError: unknown;
  loadMore: () => void;
  refresh: () => void;
  /** Show a job as an answer has just said. */
  put: (job: ListedJob) => void;
}

export function useJobList(filter: Filter): JobList {
  const head = useQuery({
    ...firstPage(filter),
    refetchInterval: LIVE_MS,
    placeholderData: keepPreviousData,
  });
  const active = useQuery({
    queryKey: ["jobs", "active", filter],
    queryFn: ({ signal }) => readActive(filter, signal),
    enabled: head.data !== undefined && !head.data.isWhole,
    refetchInterval: (query) => Math.max(LIVE_MS, 5 * (query.state.data?.tookMs ?? 0)),
  });
  const trail = useTrail(JSON.stringify(filter), head.isPlaceholderData ? undefined : head.data);
  // The page that the scrolled list has asked for first; a list of other jobs has another one.
  const [wanted, setWanted] = useState<string | null>(null);
  const rest = useInfiniteQuery({
    queryKey: ["jobs", "rest", filter, trail?.next],
    queryFn: ({ pageParam, signal }) => readPage(filter, LARGEST_PAGE, pageParam, signal),
    initialPageParam: trail?.next ?? null,
    getNextPageParam: (last) => last.next,
    enabled: wanted !== null && wanted === trail?.next,
    staleTime: "static",
  });
  const { jobs: single, read, put } = useSingleJobs();

  const answers: Answers = useMemo(() => {
    const pages: Read[] =
      trail === null ? (head.data === undefined ? [] : [head.data]) : [...trail.reads, ...(rest.data?.pages ?? [])];
    return { pages, head: head.data, active: head.data?.isWhole === true ? head.data : active.data, single };
  }, [trail, rest.data, head.data, active.data, single]);
  const jobs = useMemo(() => mergeJobs(answers, filter.states), [answers, filter]);
  useEffect(() => read(outOfDate(jobs, answers)), [jobs, answers, read]);

  const refresh = useCallback(() => {
    void head.refetch();
    if (head.data?.isWhole === false) void active.refetch();
  }, [head, active]);
  return {
    jobs,
    isPending: head.data === undefined && !head.isError,
    error: head.data === undefined ? head.error : null,
    hasMore: trail !== null && (rest.data === undefined ? trail.next !== null : rest.hasNextPage),
    isLoadingMore: rest.isFetching,
    moreError: rest.error,
    loadMore() {
      if (trail === null || rest.isFetching) return;
      if (rest.data !== undefined) void rest.fetchNextPage();
      else if (rest.isError) void rest.refetch();
      else setWanted(trail.next);
    },
    refresh,
    put,
  };
}

function useTrail(key: string, head: Head | undefined): Trail | null {
  const [kept, setKept] = useState<{ key: string; trail: Trail } | null>(null);
  useEffect(() => {
    if (head === undefined) return;
    setKept((before) => ({ key, trail: advance(before?.key === key ? before.trail : null, head) }));
  }, [key, head]);
  return kept?.key === key ? kept.trail : null;
}

async function readActive(filter: Filter, signal: AbortSignal): Promise<Read & { tookMs: number }> {
  const at = Date.now();
  const states = ACTIVE.filter((state) => filter.states.length === 0 || filter.states.includes(state));
  const jobs: ListedJob[] = [];
  let next: string | null = null;
  for (let page = 0; states.length > 0 && page < ACTIVE_PAGES; page++) {
    const read = await readPage(filter, LARGEST_PAGE, next, signal, states);
    jobs.push(...read.jobs);
    next = read.next;
    if (next === null) break;
  }
  return { at, jobs, isWhole: next === null, tookMs: Date.now() - at };
}
