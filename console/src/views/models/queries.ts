/** The registry's answers that several views of models share. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { api, ask } from "../../api/client";
import { allPages } from "../../api/pages";
import { SLOW_MS } from "../../app/queries";
import { pieces } from "./choose";

const PAGE = 500;
/** Of models in one request to compare. */
const COMPARED_AT_ONCE = 50;

/** All models by name: the registry is searched in the browser. */
export function useModels() {
  return useQuery({
    queryKey: ["models"],
    refetchInterval: SLOW_MS,
    queryFn: () => allPages((page_token) => ask(api.GET("/v1/models", { params: { query: { page_size: PAGE, page_token } } }))),
  });
}

export function useDeployments() {
  return useQuery({
    queryKey: ["deployments"],
    refetchInterval: SLOW_MS,
    queryFn: () =>
      allPages((page_token) => ask(api.GET("/v1/deployments", { params: { query: { page_size: PAGE, page_token } } }))),
  });
}

/** The key of all that is known of a model. */
export function modelKey(name: string, ...rest: string[]): string[] {
  return ["models", "of", name, ...rest];
}

export function useModel(name: string) {
  return useQuery({
    queryKey: modelKey(name),
    refetchInterval: SLOW_MS,
    queryFn: () => ask(api.GET("/v1/models/{name}", { params: { path: { name } } })),
  });
}

/** A version by its number or alias. */
export function useVersion(name: string, version: string) {
  return useQuery({
    queryKey: modelKey(name, "versions", version),
    queryFn: () => ask(api.GET("/v1/models/{name}/versions/{version}", { params: { path: { name, version } } })),
  });
}

/** Versions side by side, in the order of the references; without the numbers of each class unless they are asked for. */
export function useComparison(references: readonly string[], perClass = false) {
  return useQuery({
    queryKey: ["compare", references, perClass],
    enabled: references.length > 0,
    placeholderData: keepPreviousData,
    queryFn: async () => {
      const answers = await Promise.all(
        pieces(references, COMPARED_AT_ONCE).map((some) =>
          ask(api.GET("/v1/compare", { params: { query: { models: some.join(","), per_class: perClass } } })),
        ),
      );
      return answers.flatMap((answer) => answer.models);
    },
  });
}

/** The parameters of a comparison image by image. */
export function predictionsQuery(query: {
  models: string;
  task?: string | undefined;
  show?: "all" | "differ" | "only_first" | "only_second" | "both_wrong";
  label?: string | undefined;
  classes?: boolean;
  page_size?: number;
  page_token?: string | undefined;
}) {
  return ask(api.GET("/v1/compare/predictions", { params: { query } }));
}

/** How many images of each class every model gets right, from its kept predictions; an error where there are none. */
export function useClassCounts(models: readonly string[], task: string | undefined, enabled: boolean) {
  return useQuery({
    queryKey: ["compare", "classes", models, task],
    enabled,
    staleTime: 60_000,
    queryFn: () => predictionsQuery({ models: models.join(","), task, classes: true, page_size: 1 }),
  });
}
