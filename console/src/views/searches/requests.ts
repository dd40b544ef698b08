/** Requests for searches. */
import { queryOptions } from "@tanstack/react-query";
import { api, ask, type Schemas } from "../../api/client";
import { LIVE_MS, SLOW_MS } from "../../app/queries";
import { hasEnded } from "../jobs/jobState";

function readSearch(id: string, signal: AbortSignal) {
  return ask(api.GET("/v1/searches/{search_id}", { params: { path: { search_id: id } }, signal }));
}

/** As the client reads it: pairs of numbers in a spec are lists. */
export type Search = Awaited<ReturnType<typeof readSearch>>;
export type SearchPost = Search["post"];
export type SearchPlan = Schemas["SearchPlan"];
export type SearchEvent = Schemas["SearchEvent"];
export type Constraint = Schemas["Constraint"];
export type Candidate = Schemas["Candidate"];
export type Trial = Schemas["Trial"];
export type Change = Exclude<Search["actions"][number], "delete">;

export const SEARCHES = ["searches"];

export function searchKey(id: string): string[] {
  return [...SEARCHES, "one", id];
}

/** A search with its trials. Its events say when it has to be read again; what its jobs use and where they are, only the clock. */
export function searchQuery(id: string) {
  return queryOptions({
    queryKey: searchKey(id),
    queryFn: ({ signal }) => readSearch(id, signal),
    refetchInterval: (query) => (query.state.data !== undefined && hasEnded(query.state.data) ? false : SLOW_MS),
  });
}

/** How often a list is read again: seldom once all its searches have ended. */
export function intervalOf(searches: readonly Search[] | undefined): number {
  return searches?.every(hasEnded) ? SLOW_MS : LIVE_MS;
}

/** Return the search after the change. */
export function change(action: Change, id: string): Promise<Search> {
  const init = { params: { path: { search_id: id } } };
  switch (action) {
    case "cancel":
      return ask(api.POST("/v1/searches/{search_id}/cancel", init));
    case "pause":
      return ask(api.POST("/v1/searches/{search_id}/pause", init));
    case "resume":
      return ask(api.POST("/v1/searches/{search_id}/resume", init));
  }
}

export function remove(id: string): Promise<unknown> {
  return ask(api.DELETE("/v1/searches/{search_id}", { params: { path: { search_id: id } } }));
}
