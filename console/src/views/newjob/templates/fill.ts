/** A template with what this service has: the folder of the examples, else a registered data set. */
import { EXAMPLES_PLACE, PLACEHOLDERS, withDataset, withoutPlaceholder } from "../document/edit";

export function filledTemplate(template: string, examples: { name: string; spec: string }[], datasets: string[]): string {
  const folder = examplesFolder(examples);
  const text = folder === null ? template : withoutPlaceholder(template, EXAMPLES_PLACE, folder);
  const dataset = datasets[0];
  const needsData = PLACEHOLDERS.some((place) => text.includes(`shards: ${place.text}`));
  return needsData && dataset !== undefined ? withDataset(text, `${dataset}@latest`) : text;
}

/** Return where the server has the examples, as the paths in their specs tell; null if it has none. */
export function examplesFolder(examples: { name: string; spec: string }[]): string | null {
  for (const { name, spec } of examples) {
    const found = name.startsWith("emoji/") ? spec.match(/(?:\s|:|["'])(\/[^\n"']*)\/emoji\/data\//)?.[1] : undefined;
    if (found !== undefined) return found;
  }
  return null;
}
