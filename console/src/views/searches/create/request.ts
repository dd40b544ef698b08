/** A search's request as people write it. */
import type { SearchPost } from "../requests";

/** Return a request with what is searched before the spec, and without what has no value. */
export function requestOf({ constraints, vary, minimize, strategy, budget, seed, spec }: SearchPost): Record<string, unknown> {
  const given = {
    constraints: constraints.map((constraint) =>
      constraint.latency_ms == null ? without(constraint, ["engine", "batch", "tower", "threads", "device"]) : constraint,
    ),
    vary,
    minimize,
    strategy,
    budget,
    seed,
    spec,
  };
  return withoutNulls(given) as Record<string, unknown>;
}

function without<T extends object>(value: T, names: (keyof T)[]): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([name]) => !names.includes(name as keyof T))) as Partial<T>;
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, each]) => each !== null && each !== undefined)
      .map(([name, each]) => [name, withoutNulls(each)]),
  );
}
