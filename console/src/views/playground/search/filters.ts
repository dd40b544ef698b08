/** Filters of a search as rows of a form, and as the JSON that the API takes. */
import { flat } from "./captions";

export const OPERATORS = ["=", "≠", "<", "≤", ">", "≥", "in"] as const;
export type Operator = (typeof OPERATORS)[number];

export interface Condition {
  path: string;
  operator: Operator;
  value: string;
}

export type Scalar = string | number | boolean;
export type Kind = "number" | "text" | "boolean";
type Filter = Record<string, unknown>;

const NAMES: Partial<Record<Operator, string>> = { "≠": "ne", "<": "lt", "≤": "lte", ">": "gt", "≥": "gte", in: "in" };
const NUMBER = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/;

/** Return the fields of the metadata that were seen, each with the kind of its values. */
export function fieldsOf(metadata: Record<string, unknown>[]): Map<string, Kind> {
  const kinds = new Map<string, Kind>();
  for (const each of metadata) {
    for (const [path, value] of flat(each)) {
      const kind = kindOf(Array.isArray(value) ? value[0] : value);
      if (kind === null) continue;
      const before = kinds.get(path);
      kinds.set(path, before === undefined || before === kind ? kind : "text");
    }
  }
  return kinds;
}

function kindOf(value: unknown): Kind | null {
  if (typeof value === "number") return "number";
  if (typeof value === "boolean") return "boolean";
  return typeof value === "string" ? "text" : null;
}

/** Read a value as it is typed: numbers and true or false as such, unless the field has texts; quoted, it is a text. */
export function parseValue(text: string, kind?: Kind): Scalar {
  const value = text.trim();
  if (/^".*"$/s.test(value)) {
    try {
      return JSON.parse(value) as string;
    } catch {
      return value;
    }
  }
  if (kind === "text") return value;
  if (value === "true" || value === "false") return value === "true";
  return NUMBER.test(value) ? Number(value) : value;
}

/** Return the filter of rows; rows without field or value are left out. `problem`: what cannot be combined. */
export function toFilter(
  rows: Condition[],
  kinds: ReadonlyMap<string, Kind> = new Map(),
): { filter: Filter | null; problem: string | null } {
  const conditions = new Map<string, Filter>();
  for (const { path, operator, value } of rows) {
    if (path.trim() === "" || value.trim() === "") continue;
    const kind = kinds.get(path.trim());
    const given = conditions.get(path.trim()) ?? {};
    const name = NAMES[operator] ?? "in"; // equal to one value is equal to any of one
    if (name in given)
      return { filter: null, problem: `${path} has two conditions ${operator}; use one, or "in" for several values.` };
    given[name] =
      name === "in"
        ? (operator === "in" ? value.split(",").filter((each) => each.trim() !== "") : [value]).map((each) =>
            parseValue(each, kind),
          )
        : parseValue(value, kind);
    conditions.set(path.trim(), given);
  }
  if (conditions.size === 0) return { filter: null, problem: null };
  return { filter: Object.fromEntries([...conditions].map(([path, given]) => [path, shortened(given)])), problem: null };
}

/** `{in: [2020]}` as `2020`, `{in: [a, b]}` as `[a, b]`. */
function shortened(given: Filter): unknown {
  if (Object.keys(given).length !== 1 || !Array.isArray(given.in)) return given;
  return given.in.length === 1 ? given.in[0] : given.in;
}

/** Return the rows of a filter, or null if it has what rows cannot show. */
export function fromFilter(filter: Filter): Condition[] | null {
  const rows: Condition[] = [];
  for (const [path, given] of Object.entries(filter)) {
    const operators =
      typeof given === "object" && given !== null && !Array.isArray(given)
        ? (given as Filter)
        : { in: Array.isArray(given) ? given : [given] };
    for (const [name, value] of Object.entries(operators)) {
      const operator = (Object.keys(NAMES) as Operator[]).find((each) => NAMES[each] === name);
      const values = Array.isArray(value) ? value : [value];
      if (operator === undefined || !values.every(isScalar) || (Array.isArray(value) && name !== "in")) return null;
      if (values.some((each) => String(each).includes(",") && values.length > 1)) return null;
      rows.push({
        path,
        operator: operator === "in" && values.length === 1 && !String(values[0]).includes(",") ? "=" : operator,
        value: values.map(written).join(", "),
      });
    }
  }
  return rows;
}

function isScalar(value: unknown): value is Scalar {
  return kindOf(value) !== null;
}

/** A text that would be read as something else gets quotes. */
function written(value: Scalar): string {
  return typeof value === "string" && (parseValue(value) !== value || value === "") ? JSON.stringify(value) : String(value);
}

/** Return the filter of a JSON text; null if there is none. Throws an Error that names the fault. */
export function parseFilter(text: string): Filter | null {
  if (text.trim() === "") return null;
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw new Error('Write an object, as {"year": 2020}.');
  return Object.keys(parsed).length === 0 ? null : (parsed as Filter);
}

/** Return the filter of an address, which may have been written by hand; what cannot be read is no filter. */
export function readFilter(text: string | undefined): Filter | null {
  try {
    return parseFilter(text ?? "");
  } catch {
    return null;
  }
}
