import { QueryClient } from "@tanstack/react-query";
import { isRetryable } from "../api/problems";

/** The cache of the API's answers. A failed refresh keeps what was shown; an outage ends with a refresh (see connection.ts). */
export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (failures, error) => isRetryable(error) && failures < 3,
      retryDelay: (failures) => Math.min(500 * 2 ** failures, 4_000),
      networkMode: "always", // the server may be on this machine
      refetchOnWindowFocus: true,
    },
    mutations: {
      // A lost response is answered again: every request that changes something has an idempotency key.
      retry: false,
      networkMode: "always",
    },
  },
});

/** Intervals of views that show what changes. */
export const LIVE_MS = 2_000;
export const SLOW_MS = 10_000;
