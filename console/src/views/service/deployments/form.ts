/** The fields of the dialog about a deployment, and the request that they make. */
import type { Schemas } from "../../../api/client";

type Put = Schemas["DeploymentPut"];

export const ENGINES: Put["engine"][] = ["auto", "torch", "torch-bf16", "openvino", "openvino-bf16", "openvino-int8"];

export interface DeploymentForm {
  /** Null: not touched yet. */
  name: string | null;
  model: string | null;
  min: number;
  max: number;
  engine: NonNullable<Put["engine"]>;
  /** Empty: none. */
  canary: string;
  /** In percent. */
  weight: number;
}

export function formOf(existing: Schemas["Deployment"] | undefined, model: string | null): DeploymentForm {
  return {
    name: existing?.name ?? null,
    model: existing?.model ?? model,
    min: existing?.replicas.min ?? 1,
    max: existing?.replicas.max ?? 1,
    engine: (existing?.engine ?? "auto") as DeploymentForm["engine"],
    canary: existing?.canary?.model ?? "",
    weight: Math.round(100 * (existing?.canary?.weight ?? 0.1)),
  };
}

export type FilledForm = DeploymentForm & { name: string; model: string };

/** Return the form with what it suggests: the newest model, and its name for the deployment. */
export function filled(form: DeploymentForm, newest: string | undefined): FilledForm {
  const model = form.model ?? (newest === undefined ? "" : `${newest}@latest`);
  return { ...form, model, name: form.name ?? model.split("@")[0]! };
}

/** What the form does not show stays as it is. */
export function bodyOf(form: FilledForm, existing: Schemas["Deployment"] | undefined): Put {
  const canary = form.canary.trim();
  return {
    model: form.model.trim(),
    models: existing?.models ?? [],
    resident: existing?.resident ?? 4,
    replicas: { min: form.min, max: form.max, target_requests: existing?.replicas.target_requests ?? 16 },
    engine: form.engine,
    canary: canary === "" ? null : { model: canary, weight: form.weight / 100 },
  };
}

/** Return why the form cannot be sent; null if it can. */
export function problemOf(form: FilledForm): string | null {
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(form.name.trim())) return "Give a name of lower-case letters, digits, . _ -";
  if (!/^[^@\s]+@[^@\s]+$/.test(form.model.trim())) return "Give a model with its version, as emoji@latest";
  return form.max < form.min ? "Give at least as many replicas at most as at least" : null;
}
