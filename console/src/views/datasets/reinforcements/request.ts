/** The form of a reinforcement, and the request that it becomes. */
import type { Schemas } from "../../../api/client";

export interface ReinforceForm {
  teacher: string;
  pretrained: string;
  augmentations: number;
  captions: "all" | "first";
  dtype: "bf16" | "fp32" | "int8";
}

export const NEW_REINFORCEMENT: ReinforceForm = { teacher: "", pretrained: "", augmentations: 5, captions: "all", dtype: "bf16" };

/** The server has the defaults of all other fields. */
export function requestOf(form: ReinforceForm, dryRun: boolean): Schemas["ReinforcementPost"] {
  const { augmentations, captions, dtype } = form;
  const teacher = { model: form.teacher.trim(), pretrained: form.pretrained.trim() || null };
  return { teacher, augmentations, captions, dtype, dry_run: dryRun } as Schemas["ReinforcementPost"];
}
