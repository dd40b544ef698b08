/** The first page is read again and again; what new jobs push out of it stays in the list. */
import type { ListedJob, Read } from "./mergeJobs";

export interface Head extends Read {
  /** Token of the page that follows. */
  next: string | null;
}

export interface Trail {
  last: Head;
  /** The first page as it was first read, and what has left it since. */
  reads: Read[];
  /** Token of the page after the first page as it was first read. */
  next: string | null;
}

/** Return the trail with a newer first page. If nothing of the one before is on it, jobs between are unknown: begin again. */
export function advance(trail: Trail | null, head: Head): Trail {
  const inHead = new Set(head.jobs.map((job) => job.id));
  if (trail === null || (!head.isWhole && !trail.last.jobs.some((job) => inHead.has(job.id)))) {
    return { last: head, reads: [head], next: head.next };
  }
  const oldest = head.jobs.at(-1)?.created ?? Infinity;
  const left = trail.last.jobs.filter((job: ListedJob) => !inHead.has(job.id) && job.created <= oldest);
  const reads =
    left.length === 0 || head.isWhole ? trail.reads : [...trail.reads, { at: trail.last.at, jobs: left, isWhole: false }];
  return { ...trail, last: head, reads };
}
