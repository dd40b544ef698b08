/** A spec as text: its value, or what is wrong with its syntax and where. */
import { parseDocument, type Document } from "yaml";

export interface Place {
  from: number;
  to: number;
}

/** A mistake that can be shown in the text. */
export interface Mistake extends Place {
  message: string;
  severity: "error" | "warning";
}

export interface Parsed {
  document: Document;
  /** Undefined while the syntax has errors. */
  value: unknown;
  mistakes: Mistake[];
}

export function parse(text: string): Parsed {
  const document = parseDocument(text, { prettyErrors: false, version: "1.2" });
  const mistakes = document.errors.map((error): Mistake => {
    const [from, to] = within(text, error.pos[0], error.pos[1]);
    return { from, to, message: sentence(error.message), severity: "error" };
  });
  if (mistakes.length > 0) return { document, value: undefined, mistakes };
  try {
    return { document, value: document.toJS({ maxAliasCount: 100 }), mistakes };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { document, value: undefined, mistakes: [{ from: 0, to: Math.min(1, text.length), message, severity: "error" }] };
  }
}

/** Keep a place within the text, and at least one character long. */
function within(text: string, from: number, to: number): [number, number] {
  const start = Math.max(0, Math.min(from, text.length - 1));
  return [start, Math.max(start, Math.min(Math.max(to, start + 1), text.length))];
}

function sentence(message: string): string {
  return message.replace(/\s+/g, " ").trim();
}
