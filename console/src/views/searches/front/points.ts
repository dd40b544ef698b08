/** What the plot of a search shows: its trials, the front, the recommended student, and the limits. */
import { percent } from "../../../app/format";
import type { Limit, Point } from "../../../ui/scatter/types";
import { isShare, metricLabel } from "../../models/metrics";
import { distinctGoals, goalsOf, neededFor, qualityOf, type Goal } from "../quality";
import type { Search, Trial } from "../requests";
import { settingsInWords } from "../settings";
import { limitOf } from "../words";
import { costKey, type Cost } from "./costs";

export const TRIALS = "Trials";
export const FRONT = "On the front";
export const RECOMMENDED = "Recommended";

/** A point, and the trial that it is. */
export interface TrialPoint extends Point {
  trial: Trial;
}

/** Return the qualities that trials have: those of the constraints first, then the others. */
export function shownGoals({ post, trials }: Search): Goal[] {
  const own = goalsOf(post);
  const metrics = trials.flatMap(({ quality }) =>
    Object.entries(quality).flatMap(([task, found]) => Object.keys(found).map((metric) => ({ task, metric }))),
  );
  const others = metrics.filter(({ metric }) => isShare(metric)).map((each): Goal => ({ ...each, keep: null, min: null }));
  return distinctGoals([...own, ...others]).filter(({ task, metric }) =>
    trials.some(({ quality }) => qualityOf(quality, task, metric) !== null),
  );
}

export function pointsOf(search: Search, goal: Goal, cost: Cost): TrialPoint[] {
  const front = new Set(search.front.map(({ trial }) => trial));
  return search.trials.flatMap((trial) => {
    const [x, y] = [cost.of(trial), valueAt(trial, goal, cost)];
    if (x === null || y === null || x <= 0) return [];
    const isRecommended = trial.number === search.recommended?.trial;
    const group = isRecommended ? RECOMMENDED : front.has(trial.number) ? FRONT : TRIALS;
    return [
      { key: String(trial.number), group, x, y, label: labelOf(trial), details: detailsOf(trial, goal, cost, x, y), trial },
    ];
  });
}

/** Return the quality in the engine of the cost, where it was measured there. */
function valueAt({ quality, measurements }: Trial, { task, metric }: Goal, { engine }: Cost): number | null {
  const measured = measurements.find((each) => each.engine === engine)?.quality;
  return (measured === undefined ? null : qualityOf(measured, task, metric)) ?? qualityOf(quality, task, metric);
}

function labelOf({ model, number }: Trial): string {
  return model == null ? `trial ${number}` : `${model.name}@${model.version}`;
}

function detailsOf(trial: Trial, goal: Goal, cost: Cost, x: number, y: number): [string, string][] {
  return [
    [metricLabel(goal.metric), percent(y)],
    [cost.label, cost.format(x)],
    ["trial", `${trial.number}, rung ${trial.rung}`],
    ["settings", settingsInWords(trial.settings)],
  ];
}

/** Return the limits of the plotted quality and cost. */
export function limitsOf({ post, teacher_quality }: Search, goal: Goal, cost: Cost): Limit[] {
  const costs = post.constraints
    .filter((constraint) => costKey(constraint) === cost.key)
    .flatMap((constraint): Limit[] => {
      const limit = limitOf(constraint);
      return limit === null ? [] : [{ axis: "x", at: limit.max, label: `at most ${cost.format(limit.max)}` }];
    });
  const qualities = goalsOf(post)
    .filter(({ task, metric }) => task === goal.task && metric === goal.metric)
    .flatMap((each): Limit[] => {
      const needed = neededFor(each, teacher_quality);
      return needed === null ? [] : [{ axis: "y", at: needed, label: `at least ${percent(needed)}` }];
    });
  return [...costs, ...qualities];
}
