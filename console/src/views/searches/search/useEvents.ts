import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useRef, useState } from "react";
import { useStream } from "../../../api/useStream";
import { hasEnded } from "../../jobs/jobState";
import { searchKey, type Search, type SearchEvent } from "../requests";

const KEPT = 2_000;

/** Follow a search's events from the first one on; each new one has the search read again. */
export function useEvents(search: Search): readonly SearchEvent[] {
  const client = useQueryClient();
  const [events, setEvents] = useState<readonly SearchEvent[]>([]);
  const last = useRef<number | undefined>(undefined);
  const seen = useRef(eventOf(search));
  seen.current = Math.max(seen.current, eventOf(search));
  const onEvents = useCallback(
    (more: readonly SearchEvent[]) => {
      const fresh = more.filter((event) => event.id > (last.current ?? 0));
      last.current = more.at(-1)?.id ?? last.current;
      setEvents((before) => [...before, ...fresh].slice(-KEPT));
      if ((last.current ?? 0) > seen.current) void client.invalidateQueries({ queryKey: searchKey(search.id) });
    },
    [client, search.id],
  );
  useStream<SearchEvent>({
    url: `/v1/searches/${encodeURIComponent(search.id)}/events`,
    after: () => last.current,
    onEvents,
    isComplete: () => hasEnded(search),
  });
  return events;
}

/** The number of the last event that the document knows of, which is in its ETag; 0 if it is not. */
function eventOf({ etag }: Search): number {
  return Number(/^\d+\.(\d+)$/.exec(etag)?.[1] ?? 0);
}
