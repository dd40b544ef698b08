/** Which jobs still change by themselves: they are read again. What can be done with a job is said by its `actions`. */
import type { Job } from "./requests";

export type { Job } from "./requests";
export type JobState = Job["state"];
export type JobAction = Job["actions"][number];

export const STATES = [
  "queued",
  "starting",
  "running",
  "pausing",
  "paused",
  "cancelling",
  "succeeded",
  "failed",
  "cancelled",
] as const satisfies readonly JobState[];
const ENDED: readonly JobState[] = ["succeeded", "failed", "cancelled"];
export const ACTIVE: readonly JobState[] = STATES.filter((state) => !ENDED.includes(state));

export function hasEnded(job: { state: JobState }): boolean {
  return ENDED.includes(job.state);
}
