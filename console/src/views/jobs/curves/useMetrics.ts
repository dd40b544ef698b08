import { useCallback, useRef, useState } from "react";
import { useQuery } from "@tanstack/react-query";
import { api, ask, type Schemas } from "../../../api/client";
import { ApiError } from "../../../api/problems";
import { useStream } from "../../../api/useStream";
import { withLater, merge, type Batch, type NamedPoint, type SeriesByName } from "./series";

/** Points of a series and stage in a snapshot. */
const SNAPSHOT_POINTS = 1_000;
/** Live points after which a new snapshot replaces all: memory stays bounded however long a job is watched. */
const LIVE_POINTS = 4_000;

/** Return a snapshot; of fewer points a series if the job has too many series. */
export async function readSnapshot(
  jobId: string,
  signal: AbortSignal,
  names = "",
  points = SNAPSHOT_POINTS,
): Promise<Schemas["Metrics"]> {
  const query = { max_points: points, ...(names === "" ? {} : { names }) };
  try {
    return await ask(api.GET("/v1/jobs/{job_id}/metrics", { params: { path: { job_id: jobId }, query }, signal }));
  } catch (error) {
    if (!(error instanceof ApiError) || error.problem.status !== 422 || points < 10) throw error;
    return readSnapshot(jobId, signal, names, Math.floor(points / 4));
  }
}

interface Live {
  series: SeriesByName;
  /** Number of the newest point. */
  last: number;
}

/** Follow a job's metrics: a snapshot, then the stream from its last point on, then new snapshots now and then. */
export function useMetrics(jobId: string, hasEnded: boolean) {
  const [live, setLive] = useState<Live | null>(null);
  const newest = useRef<Live | null>(null);
  // A job that ends while it is watched ends the stream itself, after its last points.
  const [isFollowed] = useState(!hasEnded);
  const received = useRef<{ batches: Batch[]; points: number }>({ batches: [], points: 0 });

  const show = useCallback((next: Live) => {
    newest.current = next;
    setLive(next);
  }, []);

  const snapshot = useQuery({
    queryKey: ["job", jobId, "metrics"],
    queryFn: async ({ signal }) => {
      const read = await readSnapshot(jobId, signal);
      const batches = received.current.batches.filter((batch) => batch.last > read.last);
      received.current = { batches, points: batches.reduce((total, batch) => total + batch.points.length, 0) };
      show({ series: withLater(read, batches), last: Math.max(read.last, batches.at(-1)?.last ?? 0) });
      return read.last;
    },
    staleTime: Infinity,
    gcTime: 0,
    refetchOnWindowFocus: false,
  });

  const connected = useStream<NamedPoint>({
    url: live === null || !isFollowed ? null : `/v1/jobs/${encodeURIComponent(jobId)}/metrics`,
    after: () => newest.current?.last,
    onEvents: (points, last) => {
      const before = newest.current;
      if (before === null || last <= before.last) return; // a newer snapshot has them
      received.current.batches.push({ last, points });
      received.current.points += points.length;
      show({ series: merge(before.series, points), last });
      if (received.current.points > LIVE_POINTS && !snapshot.isFetching) void snapshot.refetch();
    },
    isComplete: () => hasEnded,
  });
  return { series: live?.series, error: snapshot.error, retry: () => void snapshot.refetch(), connected };
}
