/** Server-sent events with the token in a header (which EventSource cannot send), resumed after every interruption. */
import { createParser } from "eventsource-parser";
import { ApiError, isRetryable } from "./problems";
import { send } from "./client";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
/** The server sends a comment every 15 s; a stream that is silent for longer has been lost. */
const SILENCE_MS = 40_000;

export interface Follow {
  url: string;
  /** The last event that the reader has; the stream continues after it. */
  lastEventId?: number;
  onEvent: (data: unknown, id: number) => void;
  /** True once nothing more can follow: a stream also ends when the server stops, and is then continued. */
  isComplete: () => boolean;
  /** The stream is open (again), or was interrupted. */
  onConnection?: (connected: boolean) => void;
  signal: AbortSignal;
}

/** Read a stream until it is complete. Rejects with an ApiError that is final. */
export async function follow({ url, lastEventId, onEvent, isComplete, onConnection, signal }: Follow): Promise<void> {
  let last = lastEventId;
  let pause = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      await readOnce(url, last, signal, onConnection, (data, id) => {
        last = id;
        pause = FIRST_PAUSE_MS;
        onEvent(data, id);
      });
      if (isComplete()) return;
    } catch (error) {
      if (signal.aborted) return;
      onConnection?.(false);
      if (error instanceof ApiError && !isRetryable(error)) throw error;
    }
    await sleep(pause, signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

async function readOnce(
  url: string,
  last: number | undefined,
  signal: AbortSignal,
  onConnection: Follow["onConnection"],
  onEvent: Follow["onEvent"],
): Promise<void> {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const headers: Record<string, string> = { Accept: "text/event-stream" };
    if (last !== undefined) headers["Last-Event-ID"] = String(last);
    const answer = await send(url, { headers, signal: AbortSignal.any([signal, silence.signal]) });
    if (answer.body === null) return;
    onConnection?.(true);
    const parser = createParser({
      onEvent: ({ data, id }) => onEvent(JSON.parse(data), Number(id)),
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      parser.feed(value);
    }
  } finally {
    clearTimeout(timer);
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
