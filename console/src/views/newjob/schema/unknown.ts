/** Fields that the schema does not know, each with the known one that is written most alike. */
import { alternatives, isRecord, type Schema } from "./schema";
import { fieldsOf } from "./fields";

export interface UnknownField {
  path: (string | number)[];
  message: string;
  /** The known field that was probably meant. */
  suggestion: string | null;
}

export function unknownFields(root: Schema, value: unknown): UnknownField[] {
  const found: UnknownField[] = [];
  collect(root, [root], value, [], found);
  return found;
}

function collect(root: Schema, schemas: Schema[], value: unknown, path: (string | number)[], found: UnknownField[]): void {
  const forms = schemas.flatMap((schema) => alternatives(root, schema, value));
  if (Array.isArray(value)) {
    value.forEach((item, index) =>
      collect(
        root,
        forms.flatMap((form) => form.prefixItems?.[index] ?? form.items ?? []),
        item,
        [...path, index],
        found,
      ),
    );
  } else if (typeof value === "object" && value !== null) {
    for (const [name, each] of Object.entries(value)) {
      const known = forms.flatMap((form) => form.properties?.[name] ?? []);
      if (known.length > 0) collect(root, known, each, [...path, name], found);
      else if (forms.some(isRecord) && !forms.some(isOpen)) found.push(unknown(root, forms, [...path, name], name));
    }
  }
}

/** Whether a form takes fields of any name, or nothing is known about it. */
function isOpen(form: Schema): boolean {
  const isMapping = form.type === "object" || form.type === undefined;
  return isMapping && form.additionalProperties !== false && form.enum === undefined && form.const === undefined;
}

function unknown(root: Schema, forms: Schema[], path: (string | number)[], name: string): UnknownField {
  const fields = fieldsOf(root, forms).map((field) => field.name);
  const suggestion = nearest(name, fields);
  const hint = suggestion === null ? `known here: ${fields.sort().join(", ")}` : `did you mean ${suggestion}?`;
  return { path, suggestion, message: `unknown field ${name}; ${hint}` };
}

/** Return the candidate with the fewest edits, if it is a plausible misspelling. */
export function nearest(word: string, candidates: string[]): string | null {
  const plain = (text: string) => text.toLowerCase().replace(/[-_\s]/g, "");
  let best: [number, string] | null = null;
  for (const candidate of candidates) {
    const distance = edits(plain(word), plain(candidate));
    if (distance <= Math.max(1, Math.floor(candidate.length / 3)) && (best === null || distance < best[0]))
      best = [distance, candidate];
  }
  return best?.[1] ?? null;
}

function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, place) => place);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1])));
    }
    row = next;
  }
  return row[b.length]!;
}
