/** The field whose key is written at a place of the text. */
import { isMap, isScalar, isSeq, type Document } from "yaml";
import type { Place } from "./parse";
import type { Path } from "./pointers";

export function pathAt(document: Document, offset: number): (Place & { path: Path }) | null {
  return search(document.contents, [], offset);
}

function search(node: unknown, path: Path, offset: number): (Place & { path: Path }) | null {
  if (isSeq(node)) {
    for (const [index, item] of node.items.entries()) {
      const found = search(item, [...path, index], offset);
      if (found !== null) return found;
    }
  }
  if (!isMap(node)) return null;
  for (const { key, value } of node.items) {
    if (!isScalar(key)) continue;
    const inside = [...path, String(key.value)];
    const [from, to] = key.range ?? [0, -1];
    if (offset >= from && offset <= to) return { from, to, path: inside };
    const found = search(value, inside, offset);
    if (found !== null) return found;
  }
  return null;
}
