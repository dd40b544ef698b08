import { useQuery } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { LIVE_MS } from "../../../app/queries";
import { hasEnded } from "../jobState";
import { readJob } from "../requests";

export const jobKey = (jobId: string) => ["job", jobId, "document"];

/** Read a job, and again every two seconds until it has ended. */
export function useJob(jobId: string) {
  return useQuery({
    queryKey: jobKey(jobId),
    queryFn: ({ signal }) => readJob(jobId, signal),
    refetchInterval: (query) => (query.state.data !== undefined && hasEnded(query.state.data) ? false : LIVE_MS),
  });
}

/** Read a job's spec as it was sent and as the workers get it: it never changes. */
export function specQuery(jobId: string) {
  return {
    queryKey: ["job", jobId, "spec"],
    queryFn: ({ signal }: { signal: AbortSignal }) =>
      ask(api.GET("/v1/jobs/{job_id}/spec", { params: { path: { job_id: jobId } }, signal })),
    staleTime: "static" as const,
  };
}

/** Return the steps of each stage, where the spec says so. */
export function plannedSteps(resolved: unknown): (number | null)[] {
  const stages = (resolved as { stages?: { train?: { steps?: unknown } }[] } | undefined)?.stages;
  return Array.isArray(stages) ? stages.map((stage) => (typeof stage?.train?.steps === "number" ? stage.train.steps : null)) : [];
}
