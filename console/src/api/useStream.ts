import { useEffect, useRef, useState } from "react";
import { follow } from "./stream";

interface Options<T> {
  /** Null: no stream yet. */
  url: string | null;
  /** Number of the last event that the view has; read each time the stream is opened. */
  after: () => number | undefined;
  /** `last` is the number of the last of these events. */
  onEvents: (events: T[], last: number) => void;
  isComplete: () => boolean;
}

/**
 * Follow a stream of the API while the view is open and its tab is visible; returns whether it is connected.
 *
 * A browser opens six connections to a server at most, for all tabs together: a view has one stream, and a hidden tab none.
 * Events are handed over in batches, at most one per frame.
 */
export function useStream<T>({ url, after, onEvents, isComplete }: Options<T>): boolean {
  const [connected, setConnected] = useState(false);
  const visible = useVisible();
  const latest = useRef({ after, onEvents, isComplete });
  latest.current = { after, onEvents, isComplete };

  useEffect(() => {
    if (url === null || !visible) return;
    const stop = new AbortController();
    let batch: T[] = [];
    let last = 0;
    let frame = 0;
    const flush = () => {
      frame = 0;
      const events = batch;
      batch = [];
      latest.current.onEvents(events, last);
    };
    follow({
      url,
      lastEventId: latest.current.after(),
      onEvent(data, id) {
        batch.push(data as T);
        last = id;
        frame ||= requestAnimationFrame(flush);
      },
      isComplete: () => latest.current.isComplete(),
      onConnection: setConnected,
      signal: stop.signal,
    })
      .catch((error: unknown) => console.warn(url, error))
      .finally(() => setConnected(false));
    return () => {
      stop.abort();
      if (frame !== 0) {
        cancelAnimationFrame(frame);
        flush(); // what has arrived is not sent again
      }
    };
  }, [url, visible]);
  return connected;
}

function useVisible(): boolean {
  const [visible, setVisible] = useState(() => document.visibilityState === "visible");
  useEffect(() => {
    const update = () => setVisible(document.visibilityState === "visible");
    document.addEventListener("visibilitychange", update);
    return () => document.removeEventListener("visibilitychange", update);
  }, []);
  return visible;
}
