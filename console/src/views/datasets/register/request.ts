/** The form of a registration, and the request that it becomes. */
import type { Schemas } from "../../../api/client";
import { isName } from "../../../app/names";

export interface RegisterForm {
  name: string;
  /** One pattern a line. */
  shards: string;
  captionKey: string;
  distinctKey: string;
  /** Percent of pairs that training never sees. */
  holdout: number;
  teacher: string;
  pretrained: string;
}

export const NEW_FORM: RegisterForm = {
  name: "",
  shards: "",
  captionKey: "txt",
  distinctKey: "",
  holdout: 5,
  teacher: "",
  pretrained: "",
};

/** Return what is wrong with a name, or null. */
export function nameProblem(name: string): string | null {
  if (name === "" || isName(name)) return null;
  return "Use up to 63 lower-case letters, digits, dots, underscores and hyphens, a letter or digit first.";
}

/** Return the patterns of a text area: one a line. */
export function linesOf(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
}

/** `kept`: fields of a registered source that the form does not have. The server has the defaults of all others. */
export function requestOf(form: RegisterForm, kept: Partial<Schemas["DatasetSource"]> = {}): Schemas["DatasetPut"] {
  const shards = linesOf(form.shards);
  const source = {
    ...kept,
    distinct_key: undefined,
    shards: shards.length === 1 ? shards[0] : shards,
    caption_key: form.captionKey.trim(),
    ...(form.distinctKey.trim() === "" ? {} : { distinct_key: form.distinctKey.trim() }),
  };
  const teacher = form.teacher.trim() === "" ? null : { model: form.teacher.trim(), pretrained: form.pretrained.trim() || null };
  return {
    source,
    holdout: Number((form.holdout / 100).toFixed(6)),
    ...(teacher === null ? {} : { teacher }),
  } as Schemas["DatasetPut"];
}

/** The form of a registered data set, so that it can be read again with other settings. */
export function formOf(dataset: Schemas["Dataset"]): RegisterForm {
  const { shards, caption_key, distinct_key } = dataset.source;
  return {
    ...NEW_FORM,
    name: dataset.name,
    shards: Array.isArray(shards) ? shards.join("\n") : shards,
    captionKey: caption_key,
    distinctKey: distinct_key ?? "",
    holdout: Number((100 * dataset.holdout).toFixed(4)),
  };
}
