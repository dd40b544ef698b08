/** One row for each class of a task, from the metrics of an evaluation or from its predictions. */
import type { Schemas } from "../../api/client";
import type { Metrics } from "./metrics";

export interface ClassRow {
  /** The class's name; where the evaluation kept none, its number. */
  label: string;
  /** Null: not known. */
  images: number | null;
  /** The top-1 of each model; null without images. */
  shares: (number | null)[];
}

export type ClassOrder = "worst" | "difference" | "gain" | "images" | "label";

/** Join the `per_class` lists of models that were evaluated on one task; empty if none has one, or their lengths differ. */
export function joinPerClass(models: readonly (Metrics | null | undefined)[], names: readonly string[]): ClassRow[] {
  const lists = models.map((scores) => (Array.isArray(scores?.per_class) ? (scores.per_class as (number | null)[]) : null));
  const known = lists.filter((list) => list !== null);
  const length = known[0]?.length ?? 0;
  if (known.some((list) => list.length !== length)) return [];
  const labels = classNames(models, names, length);
  const rows = labels.map((label, row) => ({ label, images: null, shares: lists.map((list) => list?.[row] ?? null) }));
  return rows.filter(({ shares }) => shares.some((share) => share !== null));
}

/** Return the same rows from the counts of predicted images, which have the names of all classes. */
export function countedClasses(counts: readonly Schemas["ClassCounts"][]): ClassRow[] {
  return counts.map(({ label, images, correct }) => ({
    label,
    images,
    shares: correct.map((right) => (images > 0 ? right / images : null)),
  }));
}

export function difference(row: ClassRow, first = 0, second = 1): number | null {
  const [a, b] = [row.shares[first], row.shares[second]];
  return a == null || b == null ? null : a - b;
}

export function sortClasses(rows: readonly ClassRow[], order: ClassOrder): ClassRow[] {
  const last = Number.POSITIVE_INFINITY;
  const keys: Record<Exclude<ClassOrder, "label">, (row: ClassRow) => number> = {
    worst: (row) => row.shares[0] ?? last,
    difference: (row) => difference(row) ?? last,
    gain: (row) => -(difference(row) ?? -last),
    images: (row) => -(row.images ?? 0),
  };
  const byLabel = (a: ClassRow, b: ClassRow) => a.label.localeCompare(b.label, undefined, { numeric: true });
  if (order === "label") return [...rows].sort(byLabel);
  return [...rows].sort((a, b) => keys[order](a) - keys[order](b) || byLabel(a, b));
}

interface WorstClass {
  row?: unknown;
  class?: unknown;
  mistaken_for?: WorstClass[] | null;
}

/** Return names by row: those of the task, else those that `worst_classes` has, else numbers. */
function classNames(models: readonly (Metrics | null | undefined)[], names: readonly string[], length: number): string[] {
  if (names.length === length) return [...names];
  const found = Array.from({ length }, (_, row) => `class ${row}`);
  const listed = (scores: Metrics | null | undefined) =>
    (Array.isArray(scores?.worst_classes) ? scores.worst_classes : []) as WorstClass[];
  for (const worst of models.flatMap(listed)) {
    for (const { row, class: name } of [worst, ...(worst.mistaken_for ?? [])]) {
      if (typeof row === "number" && row < length && typeof name === "string") found[row] = name;
    }
  }
  return found;
}

/** Return the classes that a spec lists for a task (`words.de`: those of the language); empty if they are in a file. */
export function classesOfSpec(lineage: Record<string, unknown>, task: string): string[] {
  const spec = lineage.spec as { evaluation?: { tasks?: { name?: string; classes?: unknown }[] } } | undefined;
  const tasks = Array.isArray(spec?.evaluation?.tasks) ? spec.evaluation.tasks : [];
  const [name, language] = [tasks.find((each) => each.name === task)?.name ?? task.split(".")[0], task.split(".").at(-1)!];
  const classes = tasks.find((each) => each.name === name)?.classes;
  const listed = Array.isArray(classes) ? classes : ((classes as Record<string, unknown> | null | undefined)?.[language] ?? []);
  return Array.isArray(listed) ? listed.filter((each): each is string => typeof each === "string") : [];
}
