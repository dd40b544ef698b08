/** All that is wrong with a text, at its place: syntax, unknown fields, and what the server has found. */
import { ApiError } from "../../../api/problems";
import { visible } from "../../../app/labels";
import type { Mistake, Parsed } from "../document/parse";
import { placeOf, placeOfKey, pointerParts } from "../document/pointers";
import type { Schema } from "../schema/schema";
import { unknownFields } from "../schema/unknown";

export interface ListedMistake extends Mistake {
  /** Where in the spec, as `stages.0.train`; empty for syntax. */
  where: string;
}

export function mistakesOf(
  text: string,
  { document, value, mistakes }: Parsed,
  schema: Schema | null,
  error: unknown,
): ListedMistake[] {
  if (value === undefined) return mistakes.map((mistake) => ({ ...mistake, where: "" }));
  const unknown = schema === null ? [] : unknownFields(schema, value);
  const named = new Set(unknown.map(({ path }) => path.join(".")));
  const found: ListedMistake[] = unknown.map(({ path, message }) => ({
    ...(placeOfKey(document, text, path) ?? placeOf(document, text, path)),
    where: path.join("."),
    message,
    severity: "error",
  }));
  for (const { pointer, message } of error instanceof ApiError ? (error.problem.errors ?? []) : []) {
    const parts = pointerParts(pointer);
    if (named.has(parts.join("."))) continue;
    found.push({ ...placeOf(document, text, parts), where: parts.join("."), message: visible(message), severity: "error" });
  }
  return found.sort((a, b) => a.from - b.from);
}

/** The number of the line of a place, from 1. */
export function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
