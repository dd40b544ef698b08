/** Two specs line by line as YAML, each key beside itself. */
import { stringify } from "yaml";

export type Difference = "same" | "added" | "changed" | "removed";

export interface SpecRow {
  /** A line of YAML; null: there is none. */
  left: string | null;
  right: string | null;
  difference: Difference;
}

type Mapping = Record<string, unknown>;

/** Return the lines of both; `added` ones are in the right one only. Keys are in the order of the right one. */
export function specRows(left: unknown, right: unknown): SpecRow[] {
  if (isMapping(left) && isMapping(right)) return mappingRows(left, right, "");
  return valueRows("", left, right, "");
}

function mappingRows(left: Mapping, right: Mapping, indent: string): SpecRow[] {
  const keys = [...Object.keys(right), ...Object.keys(left).filter((key) => !(key in right))];
  return keys.flatMap((key) => valueRows(`${stringify(key).trim()}:`, left[key], right[key], indent));
}

function valueRows(head: string, left: unknown, right: unknown, indent: string): SpecRow[] {
  if (left === undefined) return linesOf(head, right, indent).map((line) => ({ left: null, right: line, difference: "added" }));
  if (right === undefined) return linesOf(head, left, indent).map((line) => ({ left: line, right: null, difference: "removed" }));
  if (isNested(left) && isNested(right) && Array.isArray(left) === Array.isArray(right)) {
    const line = indent + head;
    const nested = Array.isArray(left)
      ? listRows(left, right as unknown[], `${indent}  `)
      : mappingRows(left, right as Mapping, `${indent}  `);
    return head === "" ? nested : [{ left: line, right: line, difference: "same" }, ...nested];
  }
  return beside(linesOf(head, left, indent), linesOf(head, right, indent));
}

function listRows(left: unknown[], right: unknown[], indent: string): SpecRow[] {
  return Array.from({ length: Math.max(left.length, right.length) }, (_, index) =>
    valueRows("-", left[index], right[index], indent),
  ).flat();
}

function beside(left: string[], right: string[]): SpecRow[] {
  const isSame = left.join("\n") === right.join("\n");
  return Array.from({ length: Math.max(left.length, right.length) }, (_, index) => ({
    left: left[index] ?? null,
    right: right[index] ?? null,
    difference: isSame ? "same" : "changed",
  }));
}

/** Lists of plain values stay on one line. */
function linesOf(head: string, value: unknown, indent: string): string[] {
  if (!isNested(value)) {
    const text = stringify(value, { collectionStyle: "flow", lineWidth: 0 }).trimEnd();
    return text.split("\n").map((line, place) => (place === 0 ? `${indent}${head} ${line}`.trimEnd() : `${indent}  ${line}`));
  }
  const nested = stringify(value, { lineWidth: 0 }).trimEnd().split("\n");
  return [indent + head, ...nested.map((line) => `${indent}  ${line}`)];
}

function isMapping(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A mapping with keys, or a list of mappings or lists. */
function isNested(value: unknown): value is Mapping | unknown[] {
  if (Array.isArray(value)) return value.some((each) => typeof each === "object" && each !== null);
  return isMapping(value) && Object.keys(value).length > 0;
}

/** Return the values of a document by their dotted paths. */
export function flatten(value: unknown, path = ""): Map<string, unknown> {
  if (!isNested(value)) return new Map([[path, value]]);
  const found = new Map<string, unknown>();
  for (const [key, each] of Object.entries(value)) {
    for (const [inner, leaf] of flatten(each, path === "" ? key : `${path}.${key}`)) found.set(inner, leaf);
  }
  return found;
}

export interface DifferingField {
  path: string;
  /** One for each document; undefined where it has no such field. */
  values: unknown[];
}

/** Return the fields in which documents differ, by dotted path. */
export function differingFields(documents: readonly unknown[]): DifferingField[] {
  const flat = documents.map((document) => flatten(document));
  const paths = new Set(flat.flatMap((each) => [...each.keys()]));
  return [...paths]
    .map((path) => ({ path, values: flat.map((each) => each.get(path)) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value) ?? "")).size > 1)
    .sort((a, b) => a.path.localeCompare(b.path, "en", { numeric: true }));
}
