/** What the playground asks: deployments and indexes of the service, and queries that the control plane forwards. */
import { useQuery } from "@tanstack/react-query";
import { api, ask, send, type Schemas } from "../../api/client";
import { SLOW_MS } from "../../app/queries";
import type { LabelSetSummary } from "./wire";

export type Deployment = Schemas["Deployment"];
export type Index = Schemas["Index"];

/** An answer, with the time that it took in this browser. */
export interface Timed<T> {
  answer: T;
  milliseconds: number;
}

export function useDeployments() {
  return useQuery({
    queryKey: ["deployments", "playground"],
    queryFn: async () => (await ask(api.GET("/v1/deployments", { params: { query: { page_size: 500 } } }))).items,
    refetchInterval: SLOW_MS,
  });
}

export function useIndexes() {
  return useQuery({
    queryKey: ["indexes", "playground"],
    queryFn: async () => (await ask(api.GET("/v1/indexes", { params: { query: { page_size: 500 } } }))).items,
    refetchInterval: SLOW_MS,
  });
}

/** What a replica reports of itself: its model, engine and dimensions. */
export function useHealth(deployment: string) {
  return useQuery({
    queryKey: ["deployments", deployment, "health"],
    queryFn: async () => (await send(`/v1/deployments/${encodeURIComponent(deployment)}/health`)).json() as Promise<Record<string, unknown>>,
    staleTime: 30_000,
  });
}

export function useLabelSets(deployment: string) {
  return useQuery({
    queryKey: ["deployments", deployment, "label-sets"],
    queryFn: async () => ((await (await send(`/v1/deployments/${encodeURIComponent(deployment)}/label-sets?page_size=200`)).json()) as { items: LabelSetSummary[] }).items,
    staleTime: 10_000,
  });
}

/** Send a query to a deployment, as JSON or as a form with images. Throws ApiError, Unreachable. */
export async function query<T>(deployment: string, route: "zero-shot" | "search", body: FormData | object, signal: AbortSignal): Promise<Timed<T>> {
  const began = performance.now();
  const given: RequestInit = body instanceof FormData ? { body } : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const answer = await send(`/v1/deployments/${encodeURIComponent(deployment)}/${route}`, { method: "POST", signal, ...given });
  const document = (await answer.json()) as T;
  return { answer: document, milliseconds: performance.now() - began };
}

/** The address of the picture of an item. */
export function pictureOf(index: string, id: string, size: number): string {
  return `/v1/indexes/${encodeURIComponent(index)}/items/${encodeURIComponent(id)}/thumbnail?size=${size}`;
}
