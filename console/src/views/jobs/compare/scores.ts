/** The newest scores of each job, one row for each score of each task. */
import { isScore } from "../curves/groups";

type Evaluation = Record<string, { student: Record<string, unknown> }>;

export interface ScoreRow {
  task: string;
  score: string;
  values: (number | undefined)[];
}

export function scoreRows(jobs: readonly { stages: readonly { evaluation: Evaluation }[] }[]): ScoreRow[] {
  const rows = new Map<string, ScoreRow>();
  jobs.forEach((job, place) => {
    for (const { evaluation } of job.stages) {
      for (const [task, { student }] of Object.entries(evaluation)) {
        for (const [score, value] of Object.entries(student)) {
          if (typeof value !== "number" || !isScore(score)) continue;
          const row = rows.get(`${task}/${score}`) ?? { task, score, values: jobs.map(() => undefined) };
          row.values[place] = value; // of the last stage that has one
          rows.set(`${task}/${score}`, row);
        }
      }
    }
  });
  return [...rows.values()];
}

/** Return the best value, if there are several and they differ. */
export function best(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  const highest = Math.max(...known);
  return known.length < 2 || known.every((value) => value === highest) ? undefined : highest;
}
