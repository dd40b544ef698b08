/** The series of one job in memory: a snapshot that the server has thinned out, and the points that have followed. */
import type { Schemas } from "../../../api/client";
import { lowerBound } from "../../../ui/chart/reduce";

export type NamedPoint = Schemas["MetricPoint"] & { name: string };

/** The points of one series in one stage, by ascending step. */
export interface StagePoints {
  steps: number[];
  values: number[];
}

/** Series by name, each a list by stage; a stage without points is undefined. */
export type SeriesByName = ReadonlyMap<string, readonly (StagePoints | undefined)[]>;

export function fromSnapshot(series: Schemas["Metrics"]["series"]): SeriesByName {
  const points = Object.entries(series).flatMap(([name, each]) => each.map((point) => ({ ...point, name })));
  return merge(new Map(), points);
}

/** Return the series with more points. One of a known step replaces it; series without new points stay the same objects. */
export function merge(series: SeriesByName, points: readonly NamedPoint[]): SeriesByName {
  if (points.length === 0) return series;
  const merged = new Map(series);
  const copied = new Set<StagePoints>();
  for (const point of points) {
    const before = merged.get(point.name) ?? [];
    let stage = before[point.stage];
    if (stage === undefined || !copied.has(stage)) {
      stage = { steps: stage?.steps.slice() ?? [], values: stage?.values.slice() ?? [] };
      copied.add(stage);
      const stages = before.slice();
      stages[point.stage] = stage;
      merged.set(point.name, stages);
    }
    put(stage, point.step, point.value);
  }
  return merged;
}

/** Most points come last; those of a repeated part of training go where their step is. */
function put({ steps, values }: StagePoints, step: number, value: number): void {
  const last = steps[steps.length - 1];
  if (last === undefined || step > last) {
    steps.push(step);
    values.push(value);
    return;
  }
  const place = lowerBound(steps, step);
  if (steps[place] === step) {
    values[place] = value;
    return;
  }
  steps.splice(place, 0, step);
  values.splice(place, 0, value);
}

/** A batch of the stream, with the number of its last point. */
export interface Batch {
  last: number;
  points: readonly NamedPoint[];
}

/** Return a new snapshot with the batches that go beyond it: nothing that arrived meanwhile is lost. */
export function withLater(snapshot: Schemas["Metrics"], batches: readonly Batch[]): SeriesByName {
  const later = batches.filter((batch) => batch.last > snapshot.last).flatMap((batch) => batch.points);
  return merge(fromSnapshot(snapshot.series), later);
}
