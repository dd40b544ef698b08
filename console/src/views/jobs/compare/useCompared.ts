import { useQueries } from "@tanstack/react-query";
import { useMemo } from "react";
import { SERIES } from "../../../app/theme";
import { useSame, useSameItems } from "../../../app/useSame";
import type { Curve } from "../../../ui/chart/align";
import { smooth as smoothed } from "../../../ui/chart/smooth";
import { overStages, stageOffsets } from "../curves/axis";
import { fromSnapshot, type SeriesByName } from "../curves/series";
import { readSnapshot } from "../curves/useMetrics";
import { jobKey, plannedSteps, specQuery } from "../job/useJob";
import { hasEnded, type Job } from "../jobState";
import { readJob } from "../requests";

export const LIVE_MS = 3_000;
const POINTS = 5_000;

/** The compared jobs; those that have not ended are read again. */
export function useJobs(ids: readonly string[]) {
  return useQueries({
    queries: ids.map((id) => ({
      queryKey: jobKey(id),
      queryFn: ({ signal }: { signal: AbortSignal }) => readJob(id, signal),
      refetchInterval: (query: { state: { data?: Job | undefined } }) =>
        query.state.data !== undefined && hasEnded(query.state.data) ? false : LIVE_MS,
    })),
  });
}

export function useSpecs(ids: readonly string[]) {
  return useQueries({ queries: ids.map((id) => specQuery(id)) });
}

/** The names of all series of any of the jobs: one point of each is enough to know. */
export function useSeriesNames(ids: readonly string[], isLive: readonly boolean[]): string[] | undefined {
  const answers = useQueries({
    queries: ids.map((id, place) => ({
      queryKey: ["job", id, "series"],
      queryFn: async ({ signal }: { signal: AbortSignal }) => Object.keys((await readSnapshot(id, signal, "", 1)).series),
      refetchInterval: isLive[place] === true ? 10 * LIVE_MS : false,
      staleTime: LIVE_MS,
    })),
  });
  if (answers.every((answer) => answer.data === undefined)) return undefined;
  return [...new Set(answers.flatMap((answer) => answer.data ?? []))].sort();
}

interface Wanted {
  jobs: readonly (Job | undefined)[];
  ids: readonly string[];
  labels: readonly string[];
  resolved: readonly unknown[];
  series: string;
  keep: number;
}

/** One series of all jobs as curves. */
export function useCurves({ jobs, ids, labels, resolved, series, keep }: Wanted): {
  curves: Curve[];
  isPending: boolean;
  error: unknown;
} {
  const answers = useQueries({
    queries: ids.map((id, place) => ({
      queryKey: ["job", id, "metrics", series],
      queryFn: async ({ signal }: { signal: AbortSignal }) =>
        fromSnapshot((await readSnapshot(id, signal, series, POINTS)).series),
      enabled: series !== "",
      refetchInterval: jobs[place] !== undefined && hasEnded(jobs[place]) ? false : LIVE_MS,
      staleTime: LIVE_MS,
      structuralSharing: false,
    })),
  });
  const data = useSameItems(answers.map((answer) => answer.data));
  const specs = useSameItems(resolved);
  const names = useSame(labels);
  const curves = useMemo(
    () =>
      data.map((answer, place): Curve => {
        const found: SeriesByName = answer ?? new Map();
        const { x, y } = overStages(found.get(series) ?? [], stageOffsets(plannedSteps(specs[place]), found));
        return {
          label: names[place] ?? "",
          color: SERIES[place % SERIES.length]!,
          x,
          y: smoothed(y, keep),
          points: x.length < 50,
        };
      }),
    [data, specs, names, series, keep],
  );
  return {
    curves,
    isPending: answers.some((answer) => answer.isPending),
    error: answers.find((answer) => answer.isError && answer.data === undefined)?.error ?? null,
  };
}

/** Names of jobs; with the id where two have the same. */
export function distinctLabels(jobs: readonly (Job | undefined)[], ids: readonly string[]): string[] {
  const names = jobs.map((job, place) => job?.name ?? ids[place]!);
  return names.map((name, place) => (names.filter((each) => each === name).length > 1 ? `${name} (${ids[place]})` : name));
}
