import { useCallback, useRef, useState } from "react";
import { ApiError } from "../../../api/problems";
import { atMost } from "../atMost";
import { readJob } from "../requests";
import { listed, type ListedJob } from "./mergeJobs";

type Single = Map<string, { at: number; job: ListedJob | null }>;

/** Jobs that are read one by one, because no list has them any more. */
export function useSingleJobs() {
  const [jobs, setJobs] = useState<Single>(new Map());
  const reading = useRef(new Set<string>());

  const read = useCallback((ids: string[]) => {
    const wanted = ids.filter((id) => !reading.current.has(id)).slice(0, 100);
    if (wanted.length === 0) return;
    for (const id of wanted) reading.current.add(id);
    const at = Date.now();
    void atMost(4, wanted, readOrGone).then((outcomes) => {
      for (const id of wanted) reading.current.delete(id);
      const found = outcomes.flatMap(({ item, result }) =>
        result === undefined ? [] : [[item, { at, job: result === "gone" ? null : result }] as const],
      );
      if (found.length > 0) setJobs((before) => new Map([...before, ...found]));
    });
  }, []);

  const put = useCallback((job: ListedJob) => setJobs((before) => new Map(before).set(job.id, { at: Date.now(), job })), []);
  return { jobs, read, put };
}

async function readOrGone(id: string): Promise<ListedJob | "gone"> {
  try {
    return listed(await readJob(id));
  } catch (error) {
    if (error instanceof ApiError && error.problem.status === 404) return "gone";
    throw error;
  }
}
