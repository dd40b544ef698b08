/** Completion of fields and values, and the documentation of the field under the pointer. */
import type { Completion, CompletionContext, CompletionResult, CompletionSource } from "@codemirror/autocomplete";
import type { Extension } from "@codemirror/state";
import { hoverTooltip } from "@codemirror/view";
import { contextAt } from "../document/context";
import { parse } from "../document/parse";
import { pathAt } from "../document/pathAt";
import type { Schema } from "../schema/schema";
import { detailOf, fieldAt, suggest, type KnownValues, type Suggestion } from "../schema/suggest";

/** What the editor knows beside its text; read each time that it is needed. */
export interface Knowledge {
  schema: Schema | null;
  values: KnownValues;
}

export function completionSource(knowledge: () => Knowledge): CompletionSource {
  return (context: CompletionContext): CompletionResult | null => {
    const { schema, values } = knowledge();
    if (schema === null) return null;
    const place = contextAt(context.state.doc.toString(), context.pos);
    if (place === null || (!context.explicit && place.from === place.to && !startsValue(context))) return null;
    const suggestions = suggest(schema, place, values);
    return suggestions.length === 0
      ? null
      : { from: place.from, to: place.to, options: suggestions.map(option), validFor: /^[\w.:@/-]*$/ };
  };
}

/** After `field: ` values are offered at once. */
function startsValue(context: CompletionContext): boolean {
  return context.matchBefore(/[:,[{-] /) !== null;
}

function option(suggestion: Suggestion, place: number): Completion {
  return {
    label: suggestion.label,
    type: suggestion.kind === "field" ? "property" : "enum",
    detail: suggestion.detail,
    apply: suggestion.apply,
    boost: -place, // the order of the schema
    ...(suggestion.description === "" ? {} : { info: () => help(suggestion.detail, suggestion.description) }),
  };
}

export function fieldHelp(knowledge: () => Knowledge): Extension {
  return hoverTooltip((view, pos) => {
    const { schema } = knowledge();
    const { document, value } = parse(view.state.doc.toString());
    const found = pathAt(document, pos);
    const field = found === null || schema === null ? null : fieldAt(schema, value ?? {}, found.path);
    if (found === null || field === null) return null;
    return { pos: found.from, end: found.to, above: true, create: () => ({ dom: help(detailOf(field), field.description) }) };
  });
}

function help(type: string, description: string): HTMLElement {
  const box = document.createElement("div");
  box.className = "cm-field-help";
  for (const [name, text] of [
    ["cm-field-help-type", type],
    ["cm-field-help-text", description],
  ] as const) {
    if (text === "") continue;
    const part = document.createElement("div");
    part.className = name;
    part.textContent = text;
    box.append(part);
  }
  return box;
}
