/** What a chart draws of the series of a group. */
import { SERIES } from "../../../app/theme";
import type { Curve } from "../../../ui/chart/align";
import { smooth } from "../../../ui/chart/smooth";
import { overStages } from "./axis";
import { shortName, type Group } from "./groups";
import type { StagePoints } from "./series";

interface Drawn {
  group: Group;
  /** The points of each name of the group. */
  points: readonly (readonly (StagePoints | undefined)[] | undefined)[];
  offsets: readonly number[];
  /** The newest step of all series. */
  end: number;
  keep: number;
  /** Scores of the teacher by name of the series. */
  teacher: ReadonlyMap<string, number>;
}

/** Return the curves of a group, and a dashed line over the whole axis for each score of the teacher. */
export function curvesOf({ group, points, offsets, end, keep, teacher }: Drawn): Curve[] {
  const curves = group.names.map((name, place): Curve => {
    const { x, y } = overStages(points[place] ?? [], offsets);
    return {
      label: shortName(name),
      color: SERIES[place % SERIES.length]!,
      x,
      y: group.sparse ? y : smooth(y, keep),
      points: group.sparse,
    };
  });
  const lines = group.names.flatMap((name, place): Curve[] => {
    const score = teacher.get(name);
    if (score === undefined || end <= 0) return [];
    return [
      {
        label: `${shortName(name)}, teacher`,
        color: SERIES[place % SERIES.length]!,
        x: [0, end],
        y: [score, score],
        dash: [6, 4],
      },
    ];
  });
  return [...curves, ...lines];
}

/** Return the teacher's scores, by the names of the series of its student. */
export function teacherScores(
  stages: readonly { evaluation: Record<string, { teacher?: Record<string, unknown> | null }> }[],
): Map<string, number> {
  const scores = new Map<string, number>();
  for (const { evaluation } of stages) {
    for (const [task, { teacher }] of Object.entries(evaluation)) {
      for (const [name, value] of Object.entries(teacher ?? {}))
        if (typeof value === "number") scores.set(`${task}/${name}`, value);
    }
  }
  return scores;
}
