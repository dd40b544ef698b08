/** The plan of a document while it is typed: asked for after a pause, and again when the server was busy. */
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { send, type Schemas } from "../../../api/client";
import { ApiError, isRetryable } from "../../../api/problems";

export type Plan = Schemas["Plan"];

const PAUSE_MS = 500;
const BUSY_RETRIES = 20;
const FRESH_MS = 30_000;

export interface Planned<T = Plan> {
  /** The newest plan that there is. */
  plan: T | null;
  /** It belongs to an older text. */
  isOutdated: boolean;
  isPlanning: boolean;
  /** Of the newest text that was planned; null if it has a plan. */
  error: unknown;
  /** The server asked to wait. */
  isBusy: boolean;
}

/**
 * Plan a document that is posted to `path`, given as JSON; null: it cannot be sent as it is. A newer request aborts an older one.
 */
export function usePlan<T = Plan>(spec: string | null, path = "/v1/jobs"): Planned<T> {
  const [settled] = useDebouncedValue(spec, PAUSE_MS);
  const query = useQuery({
    queryKey: ["plan", path, settled],
    queryFn: ({ signal }) => askForPlan<T>(path, settled!, signal),
    enabled: settled !== null && settled === spec,
    retry: (failures, error) => (isRetryable(error) || isTooMany(error)) && failures < BUSY_RETRIES,
    retryDelay: (failures, error) =>
      error instanceof ApiError && error.retryAfterSeconds !== null
        ? 1000 * error.retryAfterSeconds
        : Math.min(1000 * 2 ** failures, 8000),
    staleTime: FRESH_MS,
    gcTime: FRESH_MS,
    refetchOnWindowFocus: false,
  });
  const last = useRef<T | null>(null);
  if (query.data !== undefined) last.current = query.data;
  const isCurrent = spec !== null && settled === spec;
  const lastError = useRef<unknown>(null);
  if (isCurrent && !query.isFetching) lastError.current = query.error;
  return {
    plan: last.current,
    isOutdated: !isCurrent || query.data === undefined,
    isPlanning: spec !== null && (!isCurrent || query.isFetching),
    error: lastError.current,
    isBusy: useLater(query.isFetching && isTooMany(query.failureReason)),
  };
}

/** Without an idempotency key: a plan changes nothing, and need not be remembered. */
async function askForPlan<T>(path: string, spec: string, signal: AbortSignal): Promise<T> {
  const answer = await send(`${path}?validate_only=true`, {
    method: "POST",
    body: spec,
    headers: { "Content-Type": "application/json" },
    signal,
  });
  return (await answer.json()) as T;
}

function isTooMany(error: unknown): boolean {
  return error instanceof ApiError && error.problem.status === 429;
}

/** Show a condition only once it has held for a moment. */
function useLater(holds: boolean): boolean {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!holds) return setShown(false);
    const timer = setTimeout(() => setShown(true), 300);
    return () => clearTimeout(timer);
  }, [holds]);
  return shown;
}
