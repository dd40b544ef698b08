import { useMe } from "../../app/Shell";

/** True unless the token has no `write`: models have no `actions`, all of them are possible in every state. */
export function useMayWrite(): boolean {
  const me = useMe();
  return me.data === undefined || me.data.scopes.includes("write") || me.data.scopes.includes("admin");
}
