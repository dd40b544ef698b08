import type { Schemas } from "../../../api/client";
import { visible } from "../../../app/labels";

/** The version that answers, and the one that is on its way if it is another. */
export function servedModel({ model, serving, state }: Schemas["Deployment"]): string {
  if (serving == null) return visible(model);
  return state === "ready" ? visible(serving) : `${visible(serving)} (to ${visible(model)})`;
}
