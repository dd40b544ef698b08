/** What the service knows for the editor: the schema of a spec, registered models and data sets. */
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { api, ask } from "../../api/client";
import type { Knowledge } from "./editor/assist";
import type { Path } from "./document/pointers";
import type { Schema } from "./schema/schema";

const PAGE = 200;

export function useDatasetNames() {
  return useQuery({
    queryKey: ["names", "datasets"],
    queryFn: async () =>
      (await ask(api.GET("/v1/datasets", { params: { query: { page_size: PAGE } } }))).items
        .filter(({ latest }) => latest != null)
        .map(({ name }) => name),
  });
}

export function useModelNames() {
  return useQuery({
    queryKey: ["names", "models"],
    queryFn: async () =>
      (await ask(api.GET("/v1/models", { params: { query: { page_size: PAGE } } }))).items.map(({ name }) => name),
  });
}

/** `document`: a spec, or what has one as its field `spec`. */
export function useKnowledge(document: "JobSpec" | "SearchPost" = "JobSpec"): Knowledge {
  const schema = useQuery({
    queryKey: ["schema", document],
    queryFn: () => ask(api.GET("/v1/schemas/{document}", { params: { path: { document } } })),
    staleTime: Infinity,
  });
  const datasets = useDatasetNames().data;
  const models = useModelNames().data;
  return useMemo(
    () => ({ schema: (schema.data as Schema | undefined) ?? null, values: knownValues(datasets ?? [], models ?? []) }),
    [schema.data, datasets, models],
  );
}

/** Names that a place of a spec can refer to. */
export function knownValues(datasets: string[], models: string[]): Knowledge["values"] {
  return (path: Path) => {
    const place = path
      .filter((part) => typeof part === "string")
      .join(".")
      .replace(/^spec\./, "");
    if (place === "data.train.dataset")
      return datasets.map((name) => ({ text: `${name}@latest`, description: "A registered data set" }));
    if (place === "teacher.model" || place === "teachers.model") {
      const forms = [
        ["hf-hub:", "A model of the Hugging Face Hub: hf-hub:ORG/NAME"],
        ["local-dir:", "A folder or URI with a model of open_clip: local-dir:PATH"],
      ] as const;
      return [
        ...models.map((name) => ({ text: `registry:${name}@latest`, description: "A registered model" })),
        ...forms.map(([text, description]) => ({ text, description })),
      ];
    }
    return [];
  };
}
