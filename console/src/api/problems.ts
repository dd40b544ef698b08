import type { components } from "./schema";

export type Problem = components["schemas"]["Problem"];

/** An error of the API, with its problem document. */
export class ApiError extends Error {
  readonly problem: Problem;
  readonly retryAfterSeconds: number | null;

  constructor(problem: Problem, retryAfterSeconds: number | null = null) {
    super(problem.detail || problem.title);
    this.name = "ApiError";
    this.problem = problem;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** No answer of the server: a network error, or an answer of something between that is not its own. */
export class Unreachable extends Error {
  constructor(message = "The server cannot be reached.") {
    super(message);
    this.name = "Unreachable";
  }
}

export function isRetryable(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof ApiError && error.problem.retryable === true);
}

/** Return the error of an answer that is not successful. */
export async function errorOf(answer: Response): Promise<ApiError | Unreachable> {
  const retryAfter = Number(answer.headers.get("retry-after"));
  try {
    const document: unknown = await answer.clone().json();
    if (isProblem(document)) return new ApiError(document, retryAfter > 0 ? retryAfter : null);
  } catch {
    // not JSON
  }
  if (answer.status >= 500) return new Unreachable(`The server answered ${answer.status}.`);
  return new ApiError({
    type: "about:blank",
    title: answer.statusText || "Error",
    status: answer.status,
    detail: `The server answered ${answer.status}.`,
    code: "unknown",
    retryable: false,
    errors: [],
  });
}

function isProblem(document: unknown): document is Problem {
  return typeof document === "object" && document !== null && "code" in document && "status" in document && "title" in document;
}
