/** The qualities that a search keeps, and where a student's are found. */
import type { Search, SearchPost } from "./requests";

export type Quality = Record<string, Record<string, number>>;

export interface Goal {
  task: string;
  metric: string;
  /** The share of the teacher's value that a student must reach. */
  keep: number | null;
  /** The value that it must reach. */
  min: number | null;
}

/** Return the qualities of the constraints; without any, the main one of each task. */
export function goalsOf({ constraints, spec }: SearchPost): Goal[] {
  const kinds = new Map(spec.evaluation.tasks.map((task) => [task.name, mainMetric(task.kind)]));
  const kept = constraints.flatMap(({ task, metric, keep, min }) =>
    task == null ? [] : [{ task, metric: metric ?? kinds.get(task) ?? "top1", keep: keep ?? null, min: min ?? null }],
  );
  return kept.length > 0 ? kept : [...kinds].map(([task, metric]) => ({ task, metric, keep: null, min: null }));
}

/** The metric that a task is compared by, as the engine has it. */
export function mainMetric(kind: string): string {
  return kind === "retrieval" ? "text_to_image_r10" : "top1";
}

/** Return the value of a metric; for a task with several languages the mean over them. */
export function qualityOf(quality: Quality, task: string, metric: string): number | null {
  if (quality[task] !== undefined) return quality[task][metric] ?? null;
  const values = Object.entries(quality)
    .filter(([name]) => name.startsWith(`${task}.`))
    .flatMap(([, found]) => found[metric] ?? []);
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Return the least value that meets a goal; null if there is none, or the teacher's is not known yet. */
export function neededFor(goal: Goal, teacher: Search["teacher_quality"]): number | null {
  if (goal.keep === null) return goal.min;
  const value = qualityOf(teacher, goal.task, goal.metric);
  return value === null ? null : goal.keep * value;
}

/** Return each pair of a task and a metric once, those of the goals first. */
export function distinctGoals(goals: readonly Goal[]): Goal[] {
  return [...new Map(goals.toReversed().map((goal) => [`${goal.task} ${goal.metric}`, goal])).values()].reverse();
}
