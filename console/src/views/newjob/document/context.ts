/**
 * What is being written at the cursor: a field of a mapping or a value, and where in the document.
 *
 * The word at the cursor is replaced by a mark, and the parser of YAML, which goes on after errors, is asked where the mark is:
 * the context follows the rules of the language, in blocks as between braces.
 */
import { isMap, isScalar, isSeq, parseDocument, type Document } from "yaml";
import type { Path } from "./pointers";

export interface CursorContext {
  role: "field" | "value";
  /** Of the mapping that has the field, or of the value. */
  path: Path;
  /** The word that a completion replaces. */
  from: number;
  to: number;
  /** Fields that the mapping already has. */
  siblings: string[];
  /** The document with the mark, for schemas that depend on other fields. */
  value: unknown;
  /** Nothing but white space or `- ` is before the word on its line. */
  startsLine: boolean;
}

const MARK = "cursorMark";
const WORD = /[^\s,[\]{}"'#]*$/;

export function contextAt(text: string, cursor: number): CursorContext | null {
  const lineStart = text.lastIndexOf("\n", cursor - 1) + 1;
  const before = text.slice(lineStart, cursor);
  if (/(^|\s)#/.test(before)) return null;
  const startsLine = /^\s*(- +)*[^\s:,[\]{}"']*$/.test(before);
  const from = cursor - (startsLine ? before.match(/[^\s]*$/)![0] : valueWord(before)).length;
  const after = text.slice(cursor).match(/^[^\s:,[\]{}"'#]*/)![0];
  const to = cursor + after.length;
  const isFieldNow = /^\s*:(\s|$)/.test(text.slice(to, text.indexOf("\n", to) === -1 ? undefined : text.indexOf("\n", to) + 1));
  const mark = startsLine && !isFieldNow ? `${MARK}: ` : MARK;
  const document = parseDocument(text.slice(0, from) + mark + text.slice(to), { prettyErrors: false });
  const found = find(document.contents, []);
  return found === null ? null : { ...found, from, to, startsLine, value: valueOf(document) };
}

/** The word before the cursor; a value keeps its colons, as in `registry:NAME`. */
function valueWord(before: string): string {
  const word = before.match(WORD)![0];
  return word.endsWith(":") && !/:\s/.test(before.slice(0, -word.length)) ? "" : word;
}

type Found = Pick<CursorContext, "role" | "path" | "siblings">;

function find(node: unknown, path: Path): Found | null {
  if (isMap(node)) {
    const names = node.items.map((pair) => (isScalar(pair.key) ? String(pair.key.value) : ""));
    if (names.includes(MARK)) return { role: "field", path, siblings: names.filter((name) => name !== MARK) };
    return first(node.items.map((pair, index) => () => find(pair.value, [...path, names[index]!])));
  }
  if (isSeq(node)) return first(node.items.map((item, index) => () => find(item, [...path, index])));
  if (isScalar(node) && typeof node.value === "string" && node.value.includes(MARK)) return { role: "value", path, siblings: [] };
  return null;
}

function first(searches: (() => Found | null)[]): Found | null {
  for (const search of searches) {
    const found = search();
    if (found !== null) return found;
  }
  return null;
}

function valueOf(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch {
    return null; // an alias without an anchor, while it is written
  }
}
