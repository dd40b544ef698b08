/** What a token allows, for views without `actions` to follow: `admin` includes all but `metrics`, `write` includes `read`. */
import type { Schemas } from "../api/client";

type Scope = Schemas["Scope"];

const INCLUDED: Partial<Record<Scope, Scope[]>> = { admin: ["read", "write", "infer"], write: ["read"] };

export function holds(me: Schemas["Me"] | undefined, scope: Scope): boolean {
  return me?.scopes.some((held) => held === scope || INCLUDED[held]?.includes(scope)) ?? false;
}
