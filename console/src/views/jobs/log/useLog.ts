import { useCallback, useEffect, useRef, useState } from "react";
import type { Schemas } from "../../../api/client";
import { useStream } from "../../../api/useStream";

export type LogLine = Schemas["LogLine"];

/** Lines that a view begins with; the most that it can begin with, as of a search; and those that it holds. */
const TAIL = 500;
export const LONGEST_TAIL = 2_000;
const KEPT = 20_000;

interface Wanted {
  search: string;
  levels: readonly string[];
  /** Begin with the longest tail. */
  isLong: boolean;
}

/** Follow a job's log from its last lines on; the server selects lines, older ones than were shown too. */
export function useLog(jobId: string, hasEnded: boolean, { search, levels, isLong }: Wanted) {
  const query = new URLSearchParams({ tail: String(search === "" && levels.length === 0 && !isLong ? TAIL : LONGEST_TAIL) });
  if (search !== "") query.set("search", search);
  for (const level of levels) query.append("level", level);
  const url = `/v1/jobs/${encodeURIComponent(jobId)}/logs?${query}`;

  const [lines, setLines] = useState<readonly LogLine[]>([]);
  const [isComplete, setComplete] = useState(false);
  const last = useRef<number | undefined>(undefined);
  useEffect(() => {
    last.current = undefined; // before the stream of the new address opens, after the one before has handed over its last lines
    setLines([]);
    setComplete(false);
    const timer = setTimeout(() => setComplete(true), 1_500); // a stream has no end by which an empty log shows
    return () => clearTimeout(timer);
  }, [url]);

  const onEvents = useCallback((more: LogLine[]) => {
    const fresh = more.filter((line) => line.id > (last.current ?? 0));
    last.current = more.at(-1)?.id ?? last.current;
    setLines((before) => (before.length + fresh.length > KEPT ? [...before, ...fresh].slice(-KEPT) : [...before, ...fresh]));
  }, []);
  const connected = useStream<LogLine>({ url, after: () => last.current, onEvents, isComplete: () => hasEnded });
  return { lines, connected, isEmpty: lines.length === 0 && isComplete };
}
