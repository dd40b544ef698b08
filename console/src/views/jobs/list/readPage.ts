import { queryOptions } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { STATES, type JobState } from "../jobState";
import { listed } from "./mergeJobs";
import type { Head } from "./trail";

/** The first page is small, to be shown at once and read every two seconds. */
const FIRST_PAGE = 30;

export interface Filter {
  states: readonly JobState[];
  search: string | undefined;
  labels: readonly string[];
}

/** What the address of the list selects. */
export function filterOf({ state, search, label }: { state?: string[]; search?: string; label?: string[] }): Filter {
  return { states: STATES.filter((each) => state?.includes(each)), search, labels: label ?? [] };
}

export function firstPage(filter: Filter) {
  return queryOptions({
    queryKey: ["jobs", "head", filter],
    queryFn: ({ signal }) => readPage(filter, FIRST_PAGE, null, signal),
  });
}

export async function readPage(
  filter: Filter,
  size: number,
  token: string | null,
  signal: AbortSignal,
  states = filter.states,
): Promise<Head> {
  const at = Date.now();
  const query = {
    page_size: size,
    ...(token === null ? {} : { page_token: token }),
    ...(states.length === 0 ? {} : { state: [...states] }),
    ...(filter.search === undefined ? {} : { search: filter.search }),
    ...(filter.labels.length === 0 ? {} : { label: [...filter.labels] }),
  };
  const page = await ask(api.GET("/v1/jobs", { params: { query }, signal }));
  const next = page.next_page_token ?? null;
  return { at, jobs: page.items.map(listed), isWhole: token === null && next === null, isLast: next === null, next };
}
