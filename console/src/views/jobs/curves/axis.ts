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

/** Return the newest step on the axis. */
export function axisEnd(series: SeriesByName, offsets: readonly number[]): number {
  let end = 0;
  for (const stages of series.values()) {
    stages.forEach((stage, index) => {
      end = Math.max(end, (offsets[index] ?? 0) + (stage?.steps[stage.steps.length - 1] ?? 0));
    });
  }
  return end;
}

/** Return one line over all stages, with a gap (NaN) between them. */
export function overStages(
  stages: readonly (StagePoints | undefined)[],
  offsets: readonly number[],
): { x: Float64Array; y: Float64Array } {
  const parts = stages
    .map((stage, index) => ({ stage, offset: offsets[index] ?? 0 }))
    .filter(({ stage }) => stage !== undefined && stage.steps.length > 0);
  const size = parts.reduce((total, { stage }) => total + stage!.steps.length + 1, -1);
  const x = new Float64Array(Math.max(0, size));
  const y = new Float64Array(Math.max(0, size));
  let filled = 0;
  for (const { stage, offset } of parts) {
    const { steps, values } = stage!;
    if (filled > 0) {
      x[filled] = (x[filled - 1]! + offset + steps[0]!) / 2;
      y[filled++] = NaN;
    }
    for (let place = 0; place < steps.length; place++) {
      x[filled] = offset + steps[place]!;
      y[filled++] = values[place]!;
    }
  }
  return { x, y };
}

/** Return a line at the start of each stage but the first. */
export function stageMarks(names: readonly string[], offsets: readonly number[]): Mark[] {
  return names.flatMap((name, index) => (index > 0 && offsets[index] !== undefined ? [{ x: offsets[index], label: name }] : []));
}
