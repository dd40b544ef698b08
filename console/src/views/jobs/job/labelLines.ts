/** Labels as lines of text, for editing. */

export function writeLabels(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}: ${value}`)
    .join("\n");
}

/** Read `key: value` lines; the mistake, if any, in a sentence. */
export function readLabels(text: string): { labels: Record<string, string>; mistake: string | null } {
  const pairs = new Map<string, string>();
  for (const line of text.split("\n").map((each) => each.trim())) {
    if (line === "") continue;
    const colon = line.indexOf(":");
    const key = line.slice(0, colon).trim();
    if (colon < 1 || key === "") return { labels: {}, mistake: `Write “${line.slice(0, 60)}” as key: value.` };
    if (pairs.has(key)) return { labels: {}, mistake: `The label “${key.slice(0, 60)}” is there twice.` };
    pairs.set(key, line.slice(colon + 1).trim());
  }
  return { labels: Object.fromEntries(pairs), mistake: null };
}
