/** The token of this browser tab: kept in session storage, sent as a header, never in a cookie. */
import { createStore } from "./store";

const KEY = "tinyclip-token";

export const token = createStore<string | null>(sessionStorage.getItem(KEY));

/** True after a request was refused for want of a valid token. */
export const signInNeeded = createStore(false);

export function signIn(value: string): void {
  sessionStorage.setItem(KEY, value);
  token.set(value);
  signInNeeded.set(false);
}

export function signOut(): void {
  sessionStorage.removeItem(KEY);
  token.set(null);
  signInNeeded.set(true);
}

export function authorization(): Record<string, string> {
  const value = token.get();
  return value === null ? {} : { Authorization: `Bearer ${value}` };
}
