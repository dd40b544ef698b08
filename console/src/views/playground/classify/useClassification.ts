import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { placeOf, type QueryImage } from "../images";
import { query, type LabelScore } from "../queries";

export interface Asked {
  /** Labels and templates, or the name of a label set of the deployment. */
  labels: string[];
  templates: string[];
  labelSet: string | undefined;
  top: number;
}

export interface Classification {
  scores: Map<string, LabelScore[]>;
  /** Why an image has no scores. */
  errors: Map<string, string>;
  model: string;
  milliseconds: number;
}

/** Classify images; while another answer is awaited, the one before stays. */
export function useClassification(deployment: string, images: QueryImage[], asked: Asked, isEnabled: boolean) {
  return useQuery({
    queryKey: ["zero-shot", deployment, images.map((image) => image.id), asked],
    queryFn: ({ signal }) => classify(deployment, images, asked, signal),
    enabled: isEnabled && images.length > 0,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 30_000,
  });
}

async function classify(deployment: string, images: QueryImage[], asked: Asked, signal: AbortSignal): Promise<Classification> {
  const { answer, milliseconds } = await query("/v1/deployments/{name}/zero-shot", deployment, formOf(images, asked), signal);
  const scores = new Map<string, LabelScore[]>();
  images.forEach((image, place) => {
    const result = answer.results[place];
    if (result != null) scores.set(image.id, result);
  });
  const errors = new Map(answer.errors.map((error) => [images[placeOf(error.pointer)]?.id ?? "", error.message]));
  return { scores, errors, model: answer.model, milliseconds };
}

/** The request: images as they are, and an answer for the others if one of them is bad. */
function formOf(images: QueryImage[], asked: Asked): FormData {
  const form = new FormData();
  for (const image of images) form.append("image", image.content, image.name);
  if (asked.labelSet !== undefined) form.append("label_set", asked.labelSet);
  else {
    for (const label of asked.labels) form.append("labels", label);
    for (const template of asked.templates) form.append("templates", template);
  }
  form.append("top_k", String(asked.top));
  form.append("on_error", "skip");
  return form;
}
