/** Fields and values that a schema knows at a place, with texts for completion and for the pointer. */
import { alternatives, deref, isRecord, type Schema } from "./schema";

export interface Field {
  name: string;
  /** As `integer ≥ 1` or `auto | manual | none`. */
  type: string;
  description: string;
  required: boolean;
  default?: unknown;
  /** What follows the name when the field is completed: a new line for blocks. */
  opens: "value" | "block" | "list";
}

export interface Value {
  text: string;
  description: string;
}

export function fieldsOf(root: Schema, forms: Schema[]): Field[] {
  const found = new Map<string, Field>();
  for (const form of forms.filter(isRecord)) {
    for (const [name, schema] of Object.entries(form.properties ?? {})) {
      const already = found.get(name);
      if (already === undefined) found.set(name, field(root, name, schema, form.required?.includes(name) ?? false));
      else if (!already.type.includes(typeText(root, schema))) already.type = `${already.type} | ${typeText(root, schema)}`;
    }
  }
  return [...found.values()];
}

function field(root: Schema, name: string, schema: Schema, required: boolean): Field {
  const forms = alternatives(root, schema);
  const plain = deref(root, schema);
  return {
    name,
    required,
    type: typeText(root, schema),
    description: describe(root, schema),
    ...(plain.default === undefined ? {} : { default: plain.default }),
    opens: forms.some(isRecord)
      ? "block"
      : forms.some((form) => form.type === "array") && !forms.some(isScalar)
        ? "list"
        : "value",
  };
}

function isScalar(form: Schema): boolean {
  return typeof form.type === "string" && ["string", "integer", "number", "boolean"].includes(form.type);
}

/** The description of a field, else of the object that it holds. */
export function describe(root: Schema, schema: Schema): string {
  const plain = deref(root, schema);
  const own = plain.description ?? alternatives(root, schema).find((form) => form.description !== undefined)?.description ?? "";
  return unwrapped(own);
}

/** A text without the line breaks of its source; paragraphs stay. */
function unwrapped(text: string): string {
  return text
    .split(/\n{2,}/)
    .map((paragraph) => paragraph.replace(/\s*\n\s*/g, " "))
    .join("\n\n")
    .trim();
}

/** The values that a place can have, where the schema lists them. */
export function valuesOf(forms: Schema[]): Value[] {
  const found = new Map<string, Value>();
  for (const form of forms) {
    const listed =
      form.const !== undefined
        ? [form.const]
        : (form.enum ?? (form.type === "boolean" ? [true, false] : form.type === "null" ? [null] : []));
    for (const value of listed) found.set(String(value), { text: String(value), description: unwrapped(form.description ?? "") });
  }
  return [...found.values()].sort((a, b) => Number(a.text === "null") - Number(b.text === "null"));
}

export function typeText(root: Schema, schema: Schema): string {
  const texts = alternatives(root, schema).map((form) => oneType(root, form));
  return [...new Set(texts)].filter((text) => text !== "").join(" | ");
}

/** A value as it is written in a sentence: texts without quotes. */
export function plain(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function oneType(root: Schema, form: Schema): string {
  if (form.const !== undefined) return plain(form.const);
  if (form.enum !== undefined) return form.enum.map(String).join(" | ");
  if (form.type === "array") {
    const items = form.items === undefined ? "" : typeText(root, form.items);
    return items === "" ? "list" : `list of ${items}`;
  }
  if (form.type === "object") return "mapping";
  const name = form.type === "string" ? "text" : form.type;
  return [typeof name === "string" ? name : "", range(form)].filter((text) => text !== "").join(" ");
}

function range({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Schema): string {
  const parts: [string, number | undefined][] = [
    ["≥", minimum],
    [">", exclusiveMinimum],
    ["≤", maximum],
    ["<", exclusiveMaximum],
  ];
  return parts
    .filter(([, limit]) => limit !== undefined)
    .map(([sign, limit]) => `${sign} ${limit}`)
    .join(", ");
}
