/** The text to start from: a draft of this tab, a job's spec, an example on the server, or a template. */
import { useQuery } from "@tanstack/react-query";
import { api, ask } from "../../api/client";
import { specQuery } from "../jobs/job/useJob";
import { withDataset } from "./document/edit";
import { specText } from "./document/write";
import { readDraft } from "./draft";
import { filledTemplate } from "./templates/fill";
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

/** Examples whose files the server can read. */
export function useExamples() {
  return useQuery({ queryKey: ["examples"], queryFn: async () => (await ask(api.GET("/v1/examples"))).items, staleTime: 60_000 });
}

interface From {
  template?: string | undefined;
  from?: string | undefined;
  /** To train on, in place of what the template has. */
  dataset?: string | undefined;
}

export function useSource({ template, from: job, dataset }: From): Source {
  const ofJob = useJobSource(job);
  const ofTemplate = useTemplateSource(template, dataset);
  return job === undefined ? ofTemplate : ofJob;
}

function useJobSource(job: string | undefined): Source {
  const spec = useQuery({ ...specQuery(job ?? ""), enabled: job !== undefined });
  const comment = `# The spec of job ${job}, to change and submit again.\n`;
  const original = spec.data === undefined ? undefined : comment + specText(spec.data.submitted);
  const id = `job:${job}`;
  return { id, original, draft: readDraft(id), error: spec.error };
}

function useTemplateSource(name: string | undefined, dataset: string | undefined): Source {
  const datasets = useDatasetNames();
  const examples = useExamples();
  const template = TEMPLATES.find((one) => one.name === name);
  const example = examples.data?.find((one) => one.name === name);
  const chosen = template ?? TEMPLATES[0]!;
  const id = `template:${example?.name ?? chosen.name}${dataset === undefined ? "" : ` on ${dataset}`}`;
  const isPending = examples.isPending || datasets.isPending;
  const text = isPending ? undefined : (example?.spec ?? filledTemplate(chosen.text, examples.data ?? [], datasets.data ?? []));
  const original = text === undefined || dataset === undefined ? text : withDataset(text, dataset);
  return { id, original, draft: isPending ? null : readDraft(id), error: null };
}
