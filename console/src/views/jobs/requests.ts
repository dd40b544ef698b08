/** Requests for jobs. */
import { api, ask } from "../../api/client";
import type { JobAction } from "./jobState";

export function readJob(jobId: string, signal?: AbortSignal) {
  return ask(api.GET("/v1/jobs/{job_id}", { params: { path: { job_id: jobId } }, ...(signal === undefined ? {} : { signal }) }));
}

export type Job = Awaited<ReturnType<typeof readJob>>;

export type Change = Extract<JobAction, "cancel" | "pause" | "resume" | "retry">;

export const CHANGES: Record<Change, { label: string; done: string }> = {
  cancel: { label: "Cancel", done: "cancelled" },
  pause: { label: "Pause", done: "paused" },
  resume: { label: "Resume", done: "resumed" },
  retry: { label: "Retry", done: "retried" },
};

/** Return the job after the change; for a retry, the new job. */
export function change(action: Change, jobId: string): Promise<Job> {
  const init = { params: { path: { job_id: jobId } } };
  switch (action) {
    case "cancel":
      return ask(api.POST("/v1/jobs/{job_id}/cancel", init));
    case "pause":
      return ask(api.POST("/v1/jobs/{job_id}/pause", init));
    case "resume":
      return ask(api.POST("/v1/jobs/{job_id}/resume", init));
    case "retry":
      return ask(api.POST("/v1/jobs/{job_id}/retry", init));
  }
}
