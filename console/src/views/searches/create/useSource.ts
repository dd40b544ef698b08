/** The text to start from: a draft of this tab, the request of a search, or a template. */
import { useQuery } from "@tanstack/react-query";
import { specText } from "../../newjob/document/write";
import { readDraft } from "../../newjob/draft";
import { TEMPLATES as SPECS } from "../../newjob/templates";
import { filledTemplate } from "../../newjob/templates/fill";
import { useDatasetNames } from "../../newjob/useKnowledge";
import { useExamples, type Source } from "../../newjob/useSource";
import { searchQuery } from "../requests";
import { requestOf } from "./request";
import { TEMPLATES, withSpec } from "./templates";

export function useSource({ template, from }: { template?: string; from?: string }): Source {
  const ofTemplate = useTemplate(template);
  const search = useQuery({ ...searchQuery(from ?? ""), enabled: from !== undefined, refetchInterval: false });
  if (from === undefined) return ofTemplate;
  const id = `search:${from}`;
  const comment = `# The request of search ${from}, to change and send again.\n`;
  const original = search.data === undefined ? undefined : comment + specText(requestOf(search.data.post));
  return { id, original, draft: readDraft(id), error: search.error };
}

function useTemplate(name: string | undefined): Source {
  const datasets = useDatasetNames();
  const examples = useExamples();
  const template = TEMPLATES.find((one) => one.name === name) ?? TEMPLATES[0]!;
  const id = `search-template:${template.name}`;
  if (examples.isPending || datasets.isPending) return { id, original: undefined, draft: null, error: null };
  const spec = filledTemplate(SPECS[0]!.text, examples.data ?? [], datasets.data ?? []);
  return { id, original: withSpec(template, spec), draft: readDraft(id), error: null };
}
