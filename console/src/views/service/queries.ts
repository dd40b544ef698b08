/** What the service views read. */
import { useQuery } from "@tanstack/react-query";
import { api, ask } from "../../api/client";
import { allPages } from "../../api/pages";
import { LIVE_MS, SLOW_MS } from "../../app/queries";

const PAGE = 200;

export function useDeployments() {
  return useQuery({
    queryKey: ["deployments"],
    queryFn: () =>
      allPages((page_token) => ask(api.GET("/v1/deployments", { params: { query: { page_size: PAGE, page_token } } }))),
    refetchInterval: LIVE_MS,
  });
}

export function useDeployment(name: string) {
  return useQuery({
    queryKey: ["deployments", name],
    queryFn: () => ask(api.GET("/v1/deployments/{name}", { params: { path: { name } } })),
    refetchInterval: LIVE_MS,
  });
}

export function useIndexes() {
  return useQuery({
    queryKey: ["indexes"],
    queryFn: () => allPages((page_token) => ask(api.GET("/v1/indexes", { params: { query: { page_size: PAGE, page_token } } }))),
    refetchInterval: LIVE_MS,
  });
}

export function useModels(enabled = true) {
  return useQuery({
    queryKey: ["models"],
    queryFn: () => allPages((page_token) => ask(api.GET("/v1/models", { params: { query: { page_size: PAGE, page_token } } }))),
    refetchInterval: enabled ? SLOW_MS : false,
    enabled,
  });
}

/** All names of model versions: aliases first, then numbers, the newest first. */
export function useModelVersions(enabled: boolean): string[] {
  const models = useModels(enabled).data ?? [];
  return models.flatMap(({ name, aliases, versions }) => [
    `${name}@latest`,
    ...Object.keys(aliases ?? {}).map((alias) => `${name}@${alias}`),
    ...versions.toSorted((a, b) => b - a).map((version) => `${name}@${version}`),
  ]);
}

/** The name of the model that was registered last. */
export function useNewestModel(): string | undefined {
  return useModels().data?.toSorted((a, b) => b.created_at.localeCompare(a.created_at))[0]?.name;
}
