/** The one way to the API: typed requests with the token, and errors as exceptions. */
import createClient, { type Middleware } from "openapi-fetch";
import { reportReachable, reportUnreachable } from "../app/connection";
import { authorization, signInNeeded } from "../app/session";
import { ApiError, errorOf, Unreachable } from "./problems";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

/** Send a request with the token; reports whether the server was reached. Throws ApiError, Unreachable. */
export async function send(input: string | Request, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    const request = new Request(input, init);
    for (const [name, value] of Object.entries(authorization())) request.headers.set(name, value);
    answer = await fetch(request);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    reportUnreachable();
    throw new Unreachable();
  }
  if (answer.ok) {
    reportReachable();
    return answer;
  }
  const error = await errorOf(answer);
  if (error instanceof Unreachable) reportUnreachable();
  else reportReachable();
  if (error instanceof ApiError && error.problem.status === 401) signInNeeded.set(true);
  throw error;
}

const idempotent: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET") request.headers.set("Idempotency-Key", randomKey());
    return request;
  },
};

/** `api.GET("/v1/jobs/{job_id}", …)`; see `ask`. */
export const api = createClient<paths, "application/json">({ fetch: (request: Request) => send(request) });
api.use(idempotent);

/** Return the document of an answer: `await ask(api.GET("/v1/me"))`. Throws ApiError, Unreachable. */
export async function ask<T>(call: Promise<{ data?: T; response: Response }>): Promise<T> {
  return (await call).data as T;
}

/** Return a random key. `crypto.randomUUID` exists on https pages and localhost only. */
export function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
