/** What can be written at the cursor, from the schema and from what is registered in the service. */
import type { CursorContext } from "../document/context";
import type { Path } from "../document/pointers";
import { fieldsOf, plain, valuesOf, type Field } from "./fields";
import { formsAt, isRecord, type Schema } from "./schema";

export interface Suggestion {
  label: string;
  kind: "field" | "value";
  /** As `integer ≥ 1, required`. */
  detail: string;
  description: string;
  /** The text that is inserted. */
  apply: string;
}

/** Values that the service knows for a place, such as registered models for `teacher.model`. */
export type KnownValues = (path: Path) => { text: string; description: string }[];

export function suggest(root: Schema, context: CursorContext, known: KnownValues = () => []): Suggestion[] {
  const forms = formsAt(root, context.value, context.path);
  const records = forms.filter(isRecord);
  const asFields = () =>
    fieldsOf(root, records)
      .filter((one) => !context.siblings.includes(one.name))
      .map((one) => fieldSuggestion(one, context));
  if (context.role === "field" && records.length > 0) return asFields();
  const values = [...known(context.path), ...valuesOf(forms)].map(({ text, description }): Suggestion => ({
    label: text,
    kind: "value",
    detail: "",
    description,
    apply: quoted(text),
  }));
  // A scalar on a line of its own may become the first field of a mapping.
  return context.role === "value" && context.startsLine && records.length > 0 ? [...values, ...asFields()] : values;
}

function fieldSuggestion(field: Field, context: CursorContext): Suggestion {
  const inBlock = context.startsLine;
  return {
    label: field.name,
    kind: "field",
    detail: detailOf(field),
    description: field.description,
    apply: `${field.name}:${inBlock && field.opens !== "value" ? "" : " "}`,
  };
}

export function detailOf(field: Field): string {
  const parts = [field.type];
  if (field.required) parts.push("required");
  else if (field.default !== undefined && field.default !== null && typeof field.default !== "object")
    parts.push(`default ${plain(field.default)}`);
  return parts.filter((part) => part !== "").join(", ");
}

/** Values that YAML would read as something else, or not at all, are put in quotes. */
function quoted(text: string): string {
  return /[:#{}[\],&*!|>'"%@`]\s|^[[{&*!|>'"%@`#,]|:$/.test(text) ? JSON.stringify(text) : text;
}

/** The field at a path: its type and description, for the pointer and for the cursor. */
export function fieldAt(root: Schema, document: unknown, path: Path): Field | null {
  const name = path.at(-1);
  if (typeof name !== "string") return null;
  return fieldsOf(root, formsAt(root, document, path.slice(0, -1))).find((one) => one.name === name) ?? null;
}
