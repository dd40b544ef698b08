/** Readers of the parameters of an address. What is missing or has another form is undefined: an address never breaks a view. */

export function text(given: unknown): string | undefined {
  const value: unknown = Array.isArray(given) ? given[0] : given;
  return typeof value === "string" && value !== "" ? value : undefined;
}

export function number(given: unknown): number | undefined {
  const value = Number(text(given));
  return text(given) !== undefined && Number.isFinite(value) ? value : undefined;
}

export function list(given: unknown): string[] | undefined {
  const values = (Array.isArray(given) ? given : [given]).filter(
    (value): value is string => typeof value === "string" && value !== "",
  );
  return values.length > 0 ? values : undefined;
}

export function oneOf<const T extends string>(given: unknown, allowed: readonly T[]): T | undefined {
  return allowed.find((value) => value === text(given));
}

/** Return the parameters that are given: all are optional in links to a view. */
export function optional<T extends object>(search: T): { [Name in keyof T]?: Exclude<T[Name], undefined> } {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined)) as {
    [Name in keyof T]?: Exclude<T[Name], undefined>;
  };
}

/** `state=running&state=queued&search=x` as an object; a repeated parameter is a list. */
export function parseSearch(query: string): Record<string, string | string[]> {
  const parsed: Record<string, string | string[]> = {};
  for (const [name, value] of new URLSearchParams(query)) {
    const before = parsed[name];
    parsed[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value];
  }
  return parsed;
}

/** The reverse of `parseSearch`; what is undefined or empty is left out. */
export function stringifySearch(search: Record<string, unknown>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(search)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") query.append(name, String(each));
    }
  }
  const written = query.toString();
  return written === "" ? "" : `?${written}`;
}
