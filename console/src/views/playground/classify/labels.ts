/** Labels and templates as they are typed. */

export const DEFAULT_LABELS = "a cat, a dog, a house, a red bicycle";
export const DEFAULT_TEMPLATE = "a photo of {}.";
/** The most labels of a request. */
export const MOST_LABELS = 10_000;

/** Return labels that are separated by commas or lines, each once. */
export function parseLabels(text: string): string[] {
  const labels = text
    .split(/[,\n]/)
    .map((label) => label.trim())
    .filter((label) => label !== "");
  return [...new Set(labels)];
}

/** Return templates, one a line; without any, the label alone. */
export function parseTemplates(text: string): string[] {
  const templates = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");
  return templates.length > 0 ? templates : ["{}"];
}

/** Return what is wrong with templates, or null. */
export function templateProblem(text: string): string | null {
  const wrong = parseTemplates(text).find((template) => !template.includes("{}"));
  return wrong === undefined ? null : `Write {} where the label goes: ${wrong.slice(0, 60)}`;
}

/** Return what is wrong with labels, or null. */
export function labelProblem(text: string): string | null {
  const count = parseLabels(text).length;
  if (count === 0) return "Give at least one label.";
  return count > MOST_LABELS ? `${count} labels are more than ${MOST_LABELS}; register a label set, or remove some.` : null;
}
