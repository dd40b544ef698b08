/** One list of jobs from answers of different ages: pages read once, the first page and active jobs read again and again. */
import { ACTIVE, type Job, type JobState } from "../jobState";

/** What the list shows of a job: without its spec, which is most of the document. */
export interface ListedJob extends Pick<
  Job,
  "id" | "name" | "state" | "progress" | "model" | "labels" | "actions" | "created_at" | "started_at" | "finished_at"
> {
  error: string | null;
  /** Milliseconds. */
  created: number;
}

export function listed({
  id,
  name,
  state,
  progress,
  model,
  labels,
  actions,
  created_at,
  started_at,
  finished_at,
  error,
}: Job): ListedJob {
  return {
    id,
    name,
    state,
    progress,
    model,
    labels,
    actions,
    created_at,
    started_at,
    finished_at,
    error: error?.message ?? null,
    created: Date.parse(created_at),
  };
}

/** Jobs of one answer, and when it was read. */
export interface Read {
  at: number;
  jobs: readonly ListedJob[];
  /** False if more follow. */
  isWhole: boolean;
  /** No page follows. */
  isLast?: boolean;
}

export interface Answers {
  pages: readonly Read[];
  /** The newest jobs: what is newer than its last one, but not in it, is gone. */
  head: Read | undefined;
  active: Read | undefined;
  /** Jobs read one by one; null: deleted. */
  single: ReadonlyMap<string, { at: number; job: ListedJob | null }>;
}

/** Return the jobs, newest first, each as of the newest answer; only those in one of the states, if there are any. */
export function mergeJobs({ pages, head, active, single }: Answers, states: readonly JobState[] = []): ListedJob[] {
  const newest = new Map<string, { at: number; job: ListedJob }>();
  for (const read of [...pages, active, head]) {
    for (const job of read?.jobs ?? []) {
      if (read!.at >= (newest.get(job.id)?.at ?? 0)) newest.set(job.id, { at: read!.at, job });
    }
  }
  for (const [id, { at, job }] of single) {
    if (job === null) newest.delete(id);
    else if (newest.has(id) && at > newest.get(id)!.at) newest.set(id, { at, job });
  }
  const inHead = new Set(head?.jobs.map((job) => job.id));
  const oldest = head === undefined ? Infinity : head.isWhole ? -Infinity : (head.jobs.at(-1)?.created ?? Infinity);
  const floor = horizon(pages, head);
  return [...newest.values()]
    .filter(({ job }) => job.created >= floor)
    .filter(({ at, job }) => !(job.created > oldest && !inHead.has(job.id) && at <= head!.at))
    .map(({ job }) => job)
    .filter((job) => states.length === 0 || states.includes(job.state))
    .sort((a, b) => b.created - a.created || (a.id < b.id ? 1 : -1));
}

/** Return the age to which the list has been read without gaps: active jobs beyond it are shown when the list gets there. */
function horizon(pages: readonly Read[], head: Read | undefined): number {
  if (head?.isWhole === true || pages.at(-1)?.isLast === true) return -Infinity;
  return Math.min(Infinity, ...[...pages, head].flatMap((read) => read?.jobs.at(-1)?.created ?? []));
}

/** Return jobs that are shown as active but are no longer among the active ones: they have ended or are gone. */
export function outOfDate(jobs: readonly ListedJob[], { active, head, single }: Answers): string[] {
  if (active === undefined || !active.isWhole) return [];
  const known = new Set([...active.jobs, ...(head?.jobs ?? [])].map((job) => job.id));
  return jobs
    .filter((job) => ACTIVE.includes(job.state) && !known.has(job.id) && (single.get(job.id)?.at ?? 0) < active.at)
    .map((job) => job.id);
}
