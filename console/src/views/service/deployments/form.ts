/** The fields of the dialog about a deployment, and the request that they make. */
import type { Schemas } from "../../../api/client";
import { isName } from "../../../app/names";

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
    weight: Math.round(10_000 * (existing?.canary?.weight ?? 0.1)) / 100,
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

/** Return the request of a deployment with one replica. */
export function newDeployment(model: string, engine: Put["engine"]): Put {
  return { model, engine, models: [], resident: 4, replicas: { min: 1, max: 1, target_requests: 16 } };
}

/** Return the request that changes the model alone. The canary stays if it can: it has to be another version of the same model. */
export function withModel(existing: Schemas["Deployment"], model: string): Put {
  const { models = [], resident = 4, replicas, canary } = existing;
  return { model, models, resident, replicas, engine: existing.engine as Put["engine"], canary: staying(canary, model) };
}

/** Return the canary if a deployment of the model can have it, else null. */
function staying(canary: Put["canary"], model: string): Put["canary"] {
  if (canary == null || canary.model === model) return null;
  return canary.model.split("@")[0] === model.split("@")[0] ? canary : null;
}

/** Return why the form cannot be sent; null if it can. */
export function problemOf(form: FilledForm): string | null {
  if (!isName(form.name.trim())) return "Give a name of lower-case letters, digits, . _ -";
  if (!/^[^@\s]+@[^@\s]+$/.test(form.model.trim())) return "Give a model with its version, as emoji@latest";
  return form.max < form.min ? "Give at least as many replicas at most as at least" : null;
}
