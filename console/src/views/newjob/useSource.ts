/** The text to start from: a draft of this tab, a job's spec, or a template with a registered data set. */
import { useQuery } from "@tanstack/react-query";
import { stringify } from "yaml";
import { api, ask } from "../../api/client";
import { withDataset } from "./document/edit";
import { readDraft } from "./draft";
import { TEMPLATES } from "./templates";
import { useDatasetNames } from "./useKnowledge";

export interface Source {
  /** Names the draft. */
  id: string;
  /** Undefined while it is read. */
  original: string | undefined;
  draft: string | null;
  error: unknown;
}

export function useSource(template: string | undefined, job: string | undefined): Source {
  const chosen = TEMPLATES.find(({ name }) => name === template) ?? TEMPLATES[0]!;
  const id = job === undefined ? `template:${chosen.name}` : `job:${job}`;
  const datasets = useDatasetNames();
  const spec = useQuery({
    queryKey: ["jobs", job, "spec"],
    queryFn: () => ask(api.GET("/v1/jobs/{job_id}/spec", { params: { path: { job_id: job! } } })),
    enabled: job !== undefined,
    staleTime: Infinity,
  });
  if (job !== undefined) {
    const original = spec.data === undefined ? undefined : `# The spec of job ${job}, to change and submit again.\n${stringify(spec.data.submitted, { lineWidth: 130 })}`;
    return { id, original, draft: readDraft(id), error: spec.error };
  }
  const dataset = datasets.data?.[0];
  const original = datasets.isPending ? undefined : dataset === undefined ? chosen.text : withDataset(chosen.text, `${dataset}@latest`);
  return { id, original, draft: readDraft(id), error: null };
}
