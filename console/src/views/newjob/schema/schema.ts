/** JSON Schema as the API writes it: references, alternatives and discriminators resolved for a place in a document. */

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  title?: string;
  description?: string;
  type?: string | string[];
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  patternProperties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  prefixItems?: Schema[];
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  discriminator?: { propertyName: string; mapping?: Record<string, string> };
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

type Path = (string | number)[];

/** Follow references; what is written beside one (a description, a default) has precedence. */
export function deref(root: Schema, schema: Schema): Schema {
  let current = schema;
  for (let hops = 0; current.$ref !== undefined && hops < 20; hops += 1) {
    const { $ref, ...beside } = current;
    const target = $ref
      .replace(/^#\//, "")
      .split("/")
      .reduce<unknown>((node, part) => (node as Record<string, unknown> | undefined)?.[part], root);
    if (target === undefined) return beside;
    current = { ...(target as Schema), ...beside };
  }
  return current;
}

/** Return all forms that a value may have; of those with a discriminator only the one that the value names. */
export function alternatives(root: Schema, schema: Schema, value?: unknown): Schema[] {
  const plain = deref(root, schema);
  const forms = plain.anyOf ?? plain.oneOf;
  if (forms === undefined)
    return plain.allOf === undefined ? [plain] : plain.allOf.flatMap((form) => alternatives(root, form, value));
  const chosen = plain.discriminator === undefined ? undefined : namedForm(plain, value);
  const every = chosen === undefined ? forms : [chosen];
  return every.flatMap((form) => alternatives(root, form, value));
}

function namedForm({ discriminator }: Schema, value: unknown): Schema | undefined {
  const kind = (value as Record<string, unknown> | null | undefined)?.[discriminator!.propertyName];
  const target = typeof kind === "string" ? discriminator!.mapping?.[kind] : undefined;
  return target === undefined ? undefined : { $ref: target };
}

/** Return all forms of the value at a path; `document` decides between forms with a discriminator. */
export function formsAt(root: Schema, document: unknown, path: Path): Schema[] {
  let forms = alternatives(root, root, document);
  let value = document;
  for (const part of path) {
    value = (value as Record<string | number, unknown> | null | undefined)?.[part];
    forms = forms.flatMap((form) => stepsInto(form, part)).flatMap((form) => alternatives(root, form, value));
  }
  return forms;
}

function stepsInto(form: Schema, part: string | number): Schema[] {
  if (typeof part === "number") {
    const item = form.prefixItems?.[part] ?? form.items;
    return item === undefined ? [] : [item];
  }
  const own = form.properties?.[part];
  if (own !== undefined) return [own];
  const pattern = Object.entries(form.patternProperties ?? {}).find(([expression]) => new RegExp(expression).test(part));
  if (pattern !== undefined) return [pattern[1]];
  return typeof form.additionalProperties === "object" ? [form.additionalProperties] : [];
}

/** Whether a form is an object with fields of its own, not a free mapping. */
export function isRecord(form: Schema): boolean {
  return form.properties !== undefined;
}
