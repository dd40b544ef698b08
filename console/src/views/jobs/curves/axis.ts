/** One axis for all stages of a job: the steps of a stage follow those of the stage before. */
import type { Mark } from "../../../ui/chart/Chart";
import type { SeriesByName, StagePoints } from "./series";

/** Return where each stage begins on the axis. A stage without a known length is as long as its points. */
export function stageOffsets(planned: readonly (number | null | undefined)[], series: SeriesByName): number[] {
  const seen: number[] = [];
  for (const stages of series.values()) {
    stages.forEach((stage, index) => {
      seen[index] = Math.max(seen[index] ?? 0, stage?.steps[stage.steps.length - 1] ?? 0);
    });
  }
  const offsets: number[] = [];
  let total = 0;
  for (let index = 0; index < Math.max(planned.length, seen.length); index++) {
    offsets.push(total);
    total += Math.max(planned[index] ?? 0, seen[index] ?? 0);
  }
  return offsets;
}

/** Return one line over all stages, with a gap between them. */
export function overStages(stages: readonly (StagePoints | undefined)[], offsets: readonly number[]): { x: number[]; y: (number | null)[] } {
  const x: number[] = [];
  const y: (number | null)[] = [];
  for (let index = 0; index < stages.length; index++) {
    const stage = stages[index];
    const offset = offsets[index] ?? 0;
    if (stage === undefined || stage.steps.length === 0) continue;
    if (x.length > 0 && offset + stage.steps[0]! > x[x.length - 1]!) {
      x.push((x[x.length - 1]! + offset + stage.steps[0]!) / 2);
      y.push(null);
    }
    for (let place = 0; place < stage.steps.length; place++) {
      x.push(offset + stage.steps[place]!);
      y.push(stage.values[place]!);
    }
  }
  return { x, y };
}

/** Return a line at the start of each stage but the first. */
export function stageMarks(names: readonly string[], offsets: readonly number[]): Mark[] {
  return names.flatMap((name, index) => (index > 0 && offsets[index] !== undefined ? [{ x: offsets[index], label: name }] : []));
}
