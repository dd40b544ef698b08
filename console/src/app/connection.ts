/** Whether the server answers. While it does not, it is asked again every two seconds, and then all views are refreshed. */
import type { QueryClient } from "@tanstack/react-query";
import { createStore } from "./store";

const RETRY_MS = 2_000;

export const offlineSince = createStore<number | null>(null);

let timer: ReturnType<typeof setTimeout> | undefined;
let refresh: () => void = () => undefined;

/** Refresh the queries of this client after each outage. */
export function watchConnection(client: QueryClient): void {
  refresh = () => void client.refetchQueries({ type: "active" });
}

export function reportUnreachable(): void {
  if (offlineSince.get() === null) offlineSince.set(Date.now());
  timer ??= setTimeout(() => void probe(), RETRY_MS);
}

export function reportReachable(): void {
  if (offlineSince.get() === null) return;
  offlineSince.set(null);
  refresh();
}

async function probe(): Promise<void> {
  timer = undefined;
  try {
    const answer = await fetch("/livez", { cache: "no-store" });
    if (answer.ok) return reportReachable();
  } catch {
    // still away
  }
  timer ??= setTimeout(() => void probe(), RETRY_MS);
}
