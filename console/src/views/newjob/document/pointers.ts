/** JSON pointers (RFC 6901) and places in the text of a YAML document. */
import { isMap, isNode, isPair, isScalar, isSeq, type Document, type Node, type Pair } from "yaml";
import type { Place } from "./parse";

export type Path = (string | number)[];

/** `/stages/0/student` as `["stages", "0", "student"]`. */
export function pointerParts(pointer: string): string[] {
  if (pointer === "" || pointer === "/") return [];
  return pointer
    .replace(/^\//, "")
    .split("/")
    .map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
}

/**
 * Return where the value at a pointer is written: the value on one line, else the key that introduces it. A field that is missing
 * is shown at the nearest place that contains it.
 */
export function placeOf(document: Document, text: string, parts: Path): Place {
  let node: unknown = document.contents;
  let place = firstLine(text, 0, text.length);
  for (const part of parts) {
    const found = child(node, String(part));
    if (found === null) break;
    node = found.value;
    place = found.place(text) ?? place;
  }
  return place;
}

interface Child {
  value: unknown;
  place: (text: string) => Place | null;
}

function child(node: unknown, part: string): Child | null {
  if (isMap(node)) {
    const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === part);
    return pair === undefined ? null : { value: pair.value, place: (text) => placeOfPair(pair, text) };
  }
  if (isSeq(node)) {
    const item = node.items[Number(part)];
    return item === undefined ? null : { value: item, place: (text) => placeOfNode(item, text) };
  }
  return null;
}

function placeOfPair(pair: Pair, text: string): Place | null {
  const value = placeOfNode(pair.value, text);
  const isShort = isScalar(pair.value) || (isNode(pair.value) && (pair.value as { flow?: boolean }).flow === true);
  if (value !== null && isShort && value.to > value.from) return value;
  return placeOfNode(pair.key, text);
}

function placeOfNode(node: unknown, text: string): Place | null {
  const range = isNode(node) ? (node as Node).range : isPair(node) ? (node.key as Node | null)?.range : null;
  return range == null ? null : firstLine(text, range[0], range[1]);
}

/** A place that ends with its first line: a block of many lines is not underlined as a whole. */
function firstLine(text: string, from: number, to: number): Place {
  const end = text.indexOf("\n", from);
  return { from, to: end === -1 || end > to ? to : end };
}

/** Return where a key is written. */
export function placeOfKey(document: Document, text: string, parts: Path): Place | null {
  const parent = parts
    .slice(0, -1)
    .reduce<unknown>((node, part) => (node === null ? null : (child(node, String(part))?.value ?? null)), document.contents);
  if (!isMap(parent)) return null;
  const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === String(parts.at(-1)));
  return pair === undefined ? null : placeOfNode(pair.key, text);
}
