/** Curves of different steps on one axis. */

export interface Curve {
  label: string;
  color: string;
  /** Ascending. */
  x: number[];
  y: (number | null)[];
  dash?: number[];
  /** Draw points as well: for series with few of them, such as evaluations. */
  points?: boolean;
}

/** Return `[x, y1, y2, …]`, as uPlot expects: the union of all x; undefined where a curve has no point (its line goes on). */
export function align(curves: Curve[]): [number[], ...(number | null | undefined)[][]] {
  const first = curves[0];
  if (first === undefined) return [[]];
  if (curves.every((curve) => sameNumbers(curve.x, first.x))) return [first.x, ...curves.map((curve) => curve.y)];
  const x = mergeAscending(curves.map((curve) => curve.x));
  const place = new Map(x.map((value, index) => [value, index]));
  return [
    x,
    ...curves.map((curve) => {
      const y: (number | null | undefined)[] = new Array(x.length).fill(undefined);
      curve.x.forEach((value, index) => (y[place.get(value)!] = curve.y[index]));
      return y;
    }),
  ];
}

function sameNumbers(a: number[], b: number[]): boolean {
  return a === b || (a.length === b.length && a.every((value, index) => value === b[index]));
}

function mergeAscending(lists: number[][]): number[] {
  const all = Float64Array.from(lists.flat()).sort();
  return Array.from(all.filter((value, index) => index === 0 || value !== all[index - 1]));
}

/** Return the exponential moving average of values, with weight `keep` of what was before, corrected for its start; 0: as they are. */
export function smooth(values: (number | null)[], keep: number): (number | null)[] {
  if (keep <= 0) return values;
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return value;
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}
