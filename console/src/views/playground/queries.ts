/** What the playground asks: deployments and indexes of the service, and queries that the control plane forwards. */
import { useQuery } from "@tanstack/react-query";
import { api, ask, send, type Schemas } from "../../api/client";
import type { paths } from "../../api/schema";
import { LIVE_MS, SLOW_MS } from "../../app/queries";

export type Deployment = Schemas["Deployment"];
export type Index = Schemas["Index"];
export type Hit = Schemas["Hit"];
export type LabelScore = Schemas["LabelScore"];
export type SearchResponse = Schemas["SearchResponse"];

/** An answer, with the time that it took in this browser. */
export interface Timed<T> {
  answer: T;
  milliseconds: number;
}

export function useDeployments() {
  return useQuery({
    queryKey: ["playground", "deployments"],
    queryFn: async () => (await ask(api.GET("/v1/deployments", { params: { query: { page_size: 500 } } }))).items,
    refetchInterval: (query) => (query.state.data?.every((each) => each.actions.includes("query")) ? SLOW_MS : LIVE_MS),
  });
}

export function useIndexes() {
  return useQuery({
    queryKey: ["playground", "indexes"],
    queryFn: async () => (await ask(api.GET("/v1/indexes", { params: { query: { page_size: 500 } } }))).items,
    refetchInterval: SLOW_MS,
  });
}

/** What a replica reports of itself: its model, engine and dimensions. */
export function useHealth(deployment: string) {
  return useQuery({
    queryKey: ["deployments", deployment, "health"],
    queryFn: () => ask(api.GET("/v1/deployments/{name}/health", { params: { path: { name: deployment } } })),
    staleTime: 30_000,
  });
}

export function useLabelSets(deployment: string) {
  return useQuery({
    queryKey: ["deployments", deployment, "label-sets"],
    queryFn: async () =>
      (
        await ask(
          api.GET("/v1/deployments/{name}/label-sets", { params: { path: { name: deployment }, query: { page_size: 200 } } }),
        )
      ).items,
    staleTime: 10_000,
  });
}

type QueryRoute = "/v1/deployments/{name}/zero-shot" | "/v1/deployments/{name}/search";
type AnswerOf<Route extends QueryRoute> = paths[Route]["post"]["responses"][200]["content"]["application/json"];

/** Send a query to a deployment, as JSON or as a form with images. Throws ApiError, Unreachable. */
export async function query<Route extends QueryRoute>(
  route: Route,
  deployment: string,
  body: FormData | object,
  signal: AbortSignal,
): Promise<Timed<AnswerOf<Route>>> {
  const given: RequestInit =
    body instanceof FormData ? { body } : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const began = performance.now();
  const answer = await send(route.replace("{name}", encodeURIComponent(deployment)), { method: "POST", signal, ...given });
  const document = (await answer.json()) as AnswerOf<Route>;
  return { answer: document, milliseconds: performance.now() - began };
}

/** The address of the picture of an item. */
export function pictureOf(index: string, id: string, size: number): string {
  return `/v1/indexes/${encodeURIComponent(index)}/items/${encodeURIComponent(id)}/thumbnail?size=${size}`;
}
