/** What the metadata of an item says about it. */

type Metadata = Record<string, unknown>;

/** Names of fields that describe an image, the likeliest first. */
const LIKELY = ["caption", "captions", "text", "title", "description", "alt", "label", "name", "concept"];

/** Return the most caption-like text of an item's metadata, or null. */
export function captionOf(metadata: Metadata): string | null {
  const fields = Object.entries(metadata);
  for (const likely of LIKELY) {
    const found = fields.find(([name]) => name.toLowerCase() === likely);
    const text = found === undefined ? null : firstText(found[1]);
    if (text !== null) return text;
  }
  // A likely name within others, as `en_caption` or `json.title`.
  for (const likely of LIKELY.slice(0, 6)) {
    const found = fields.find(([name, value]) => name.toLowerCase().includes(likely) && firstText(value) !== null);
    if (found !== undefined) return firstText(found[1]);
  }
  return sentenceOf(fields.map(([, value]) => firstText(value)));
}

/** Return the longest text that consists of words. */
function sentenceOf(texts: (string | null)[]): string | null {
  const sentences = texts.filter(
    (text): text is string => text !== null && /\S\s+\S/.test(text) && !/^https?:/.test(text) && text.length <= 500,
  );
  return sentences.sort((a, b) => b.length - a.length)[0] ?? null;
}

/** Return a text, the first one of a list, or that of the first language of a mapping. */
function firstText(value: unknown): string | null {
  if (typeof value === "string") return value.trim() === "" ? null : value;
  if (Array.isArray(value)) return value.length > 0 ? firstText(value[0]) : null;
  if (typeof value === "object" && value !== null) {
    const first: unknown = Object.values(value)[0];
    return typeof first === "string" || Array.isArray(first) ? firstText(first) : null;
  }
  return null;
}

/** The metadata with nested keys as dotted paths, as filters name them; lists of plain values as one text. */
export function flat(metadata: Metadata, prefix = ""): [string, unknown][] {
  return Object.entries(metadata).flatMap(([name, value]): [string, unknown][] => {
    const path = prefix === "" ? name : `${prefix}.${name}`;
    const isNested = typeof value === "object" && value !== null && !Array.isArray(value);
    return isNested && prefix.split(".").length < 8 ? flat(value as Metadata, path) : [[path, value]];
  });
}

/** A value of the metadata as it is shown. */
export function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return JSON.stringify(value) ?? "";
}
