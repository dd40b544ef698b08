/** What the views of data sets ask the API. */
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, ask, type Schemas } from "../../api/client";
import { LIVE_MS, SLOW_MS } from "../../app/queries";
import { holds } from "../../app/scopes";
import { useMe } from "../../app/Shell";

export type Dataset = Schemas["Dataset"];
export type DatasetVersion = Schemas["DatasetVersion"];
export type DatasetReport = Schemas["DatasetReport"];
export type DatasetSample = Schemas["DatasetSample"];
export type Finding = Schemas["Finding"];
/** Without the augmentation, whose pairs of numbers the client reads as lists. */
export type Reinforcement = Omit<Schemas["Reinforcement"], "augment">;
export type SampleUse = Schemas["SampleUse"];

export const DATASETS = ["datasets"];

/** True when no job reads its shards; until then it is read again every two seconds. */
export function isSettled(dataset: Dataset): boolean {
  return dataset.state === "ready" || dataset.state === "failed";
}

/** Whether the caller's token may register data sets; what can be done with one is in its `actions`. */
export function useMayWrite(): boolean {
  return holds(useMe().data, "write");
}

export function useDatasets() {
  return useInfiniteQuery({
    queryKey: DATASETS,
    queryFn: ({ pageParam }) => ask(api.GET("/v1/datasets", { params: { query: { page_size: 200, page_token: pageParam } } })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_page_token ?? undefined,
    refetchInterval: (query) => (query.state.data?.pages.every((page) => page.items.every(isSettled)) ? SLOW_MS : LIVE_MS),
  });
}

export function useDataset(name: string) {
  return useQuery({
    queryKey: [...DATASETS, name],
    queryFn: () => ask(api.GET("/v1/datasets/{name}", { params: { path: { name } } })),
    refetchInterval: (query) => (query.state.data !== undefined && isSettled(query.state.data) ? SLOW_MS : LIVE_MS),
  });
}

/** A version by number or alias. `latest`: its number changes when a registration ends. */
export function useVersion(name: string, version: string, latest: number | null | undefined) {
  return useQuery({
    queryKey: [...DATASETS, name, "version", version, latest],
    queryFn: () => ask(api.GET("/v1/datasets/{name}/versions/{version}", { params: { path: { name, version } } })),
    refetchInterval: SLOW_MS, // what it allows depends on the jobs that train on it
    enabled: latest != null,
  });
}

export function useVersions(name: string, latest: number | null | undefined) {
  return useInfiniteQuery({
    queryKey: [...DATASETS, name, "versions", latest],
    queryFn: ({ pageParam }) =>
      ask(
        api.GET("/v1/datasets/{name}/versions", { params: { path: { name }, query: { page_size: 100, page_token: pageParam } } }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_page_token ?? undefined,
    refetchInterval: SLOW_MS,
  });
}

export function useReport({ name, version }: DatasetVersion) {
  return useQuery({
    queryKey: [...DATASETS, name, "report", version],
    queryFn: () =>
      ask(api.GET("/v1/datasets/{name}/versions/{version}/report", { params: { path: { name, version: String(version) } } })),
    staleTime: Infinity, // a version is immutable
  });
}

export function useSamples({ name, version }: DatasetVersion, use: SampleUse | undefined) {
  return useInfiniteQuery({
    queryKey: [...DATASETS, name, "samples", version, use],
    queryFn: ({ pageParam }) =>
      ask(
        api.GET("/v1/datasets/{name}/versions/{version}/samples", {
          params: { path: { name, version: String(version) }, query: { page_size: 100, page_token: pageParam, use } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_page_token ?? undefined,
    staleTime: Infinity,
  });
}

export function useReinforcements({ name, version }: DatasetVersion) {
  return useInfiniteQuery({
    queryKey: [...DATASETS, name, "reinforcements", version],
    queryFn: ({ pageParam }) =>
      ask(
        api.GET("/v1/datasets/{name}/versions/{version}/reinforcements", {
          params: { path: { name, version: String(version) }, query: { page_size: 100, page_token: pageParam } },
        }),
      ),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_page_token ?? undefined,
    refetchInterval: (query) => (query.state.data?.pages.every((page) => page.items.every(isTerminal)) ? SLOW_MS : LIVE_MS),
  });
}

export function isTerminal(reinforcement: Reinforcement): boolean {
  return reinforcement.state === "succeeded" || reinforcement.state === "failed";
}

/** A request that changes something, after which everything about data sets is read again. */
export function useChange<Given, Answer>(
  change: (given: Given) => Promise<Answer>,
  onDone?: (answer: Answer, given: Given) => void,
) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: change,
    onSuccess: async (answer, given) => {
      onDone?.(answer, given);
      await client.invalidateQueries({ queryKey: DATASETS });
    },
  });
}

/** The address of a sample's thumbnail; its `number` finds it at once. */
export function thumbnailOf(version: DatasetVersion, sample: { key: string; number?: number }, size: number): string {
  const number = sample.number === undefined ? "" : `&number=${sample.number}`;
  const base = `/v1/datasets/${encodeURIComponent(version.name)}/versions/${version.version}`;
  return `${base}/samples/${encodeURIComponent(sample.key)}/thumbnail?size=${size}${number}`;
}
