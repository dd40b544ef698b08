/** Small changes of a spec's text that keep its comments and its layout. */
import { isMap, isScalar, parseDocument, type Pair, type YAMLMap } from "yaml";
import type { Path } from "./pointers";

/** What a registered data set has of its own, and what is given instead of it. */
const REPLACED = ["shards", "dataset", "samples", "captions", "image_key", "caption_key", "languages", "distinct_key", "holdout"];

/** Return the text with a registered data set as its training pairs. */
export function withDataset(text: string, reference: string): string {
  const document = parseDocument(text);
  const train = document.getIn(["data", "train"]);
  if (isMap(train) && train.flow !== true && train.items.length > 0) return replacePairs(text, train, `dataset: ${reference}`);
  if (isMap(train)) for (const name of REPLACED) train.delete(name);
  document.setIn(["data", "train", "dataset"], reference);
  return document.toString({ lineWidth: 130 });
}

function replacePairs(text: string, map: YAMLMap, line: string): string {
  const replaced = map.items.filter((pair) => isScalar(pair.key) && REPLACED.includes(String(pair.key.value)));
  const indent = " ".repeat(column(text, startOf(map.items[0]!)));
  let result = text;
  for (const pair of replaced.toReversed()) {
    const [from, to] = linesOf(text, pair);
    result = result.slice(0, from) + result.slice(to);
  }
  const first = linesOf(text, replaced[0] ?? map.items[0]!)[0];
  return `${result.slice(0, first)}${indent}${line}\n${result.slice(first)}`;
}

/** The lines of a field, with a comment at the end of the last one. */
function linesOf(text: string, pair: Pair): [number, number] {
  const from = text.lastIndexOf("\n", startOf(pair) - 1) + 1;
  const value =
    (pair.value as { range?: [number, number, number] } | null)?.range?.[1] ??
    (pair.key as { range: [number, number, number] }).range[1];
  const last = from + text.slice(from, value).trimEnd().length;
  const end = text.indexOf("\n", last);
  return [from, end === -1 ? text.length : end + 1];
}

function startOf(pair: Pair): number {
  return (pair.key as { range: [number, number, number] }).range[0];
}

function column(text: string, offset: number): number {
  return offset - (text.lastIndexOf("\n", offset - 1) + 1);
}

/** Return the text with another value at a path. */
export function withValue(text: string, path: Path, value: string): string {
  const document = parseDocument(text);
  const node = document.getIn(path, true);
  if (isScalar(node) && node.range != null) return text.slice(0, node.range[0]) + value + text.slice(node.range[1]);
  document.setIn(path, value);
  return document.toString({ lineWidth: 130 });
}

export const EXAMPLES_PLACE = "/path/to/TinyCLIP/examples";

/** Places of a template that a user has to fill in. */
export const PLACEHOLDERS: { text: string; label: string; example: string }[] = [
  { text: EXAMPLES_PLACE, label: "Folder of the examples of a clone of TinyCLIP", example: "/home/you/TinyCLIP/examples" },
  { text: "/path/to/photos", label: "Folder of the photos", example: "/data/photos" },
  { text: "s3://YOUR-BUCKET", label: "Bucket or folder of the shards", example: "s3://my-bucket" },
];

export function withoutPlaceholder(text: string, placeholder: string, value: string): string {
  return text.replaceAll(placeholder, () => value.trim().replace(/\/+$/, ""));
}
