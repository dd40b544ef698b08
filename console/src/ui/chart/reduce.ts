/** Fewer points for the same picture: of each column of pixels the lowest and the highest point are drawn. */
import type { Curve } from "./align";

/** Buckets of what lies outside of the visible range, together: it keeps the extent of the axis. */
const OUTSIDE = 100;

export interface View {
  from: number;
  to: number;
  /** Columns that are told apart between `from` and `to`. */
  columns: number;
  /** Leave out values that a logarithmic axis cannot show. */
  positive?: boolean;
}

/** Return a curve that looks the same in a view. Peaks of a single point stay, and so do gaps. */
export function reduce(curve: Curve, { from, to, columns, positive = false }: View): Curve {
  const { x, y } = curve;
  const count = x.length;
  const kept: number[] = [];
  if (count <= 2 * columns) {
    for (let index = 0; index < count; index++) kept.push(index);
  } else {
    const begin = lowerBound(x, from);
    const end = Math.max(begin, lowerBound(x, to));
    pick(curve, 0, begin, (x[begin === 0 ? 0 : begin - 1]! - x[0]!) / OUTSIDE, kept);
    pick(curve, begin, end, (to - from) / columns, kept);
    pick(curve, end, count, (x[count - 1]! - x[Math.min(end, count - 1)]!) / OUTSIDE, kept);
  }
  const values = kept.map((index) => y[index]!);
  return {
    ...curve,
    x: kept.map((index) => x[index]!),
    y: values.map((value) => (isGap(value) || (positive && value <= 0) ? null : value)),
  };
}

function isGap(value: number | null | undefined): value is null | undefined {
  return value === null || value === undefined || value !== value;
}

/** Add the indexes kept of `begin` to `end`, in buckets of `width` along x: the first, the last, and each bucket's extremes. */
function pick({ x, y }: Curve, begin: number, end: number, width: number, kept: number[]): void {
  if (begin < end) kept.push(begin);
  let index = begin;
  while (index < end) {
    if (isGap(y[index])) {
      keep(kept, index++);
      while (index < end && isGap(y[index])) index++;
      continue;
    }
    const first = index;
    const until = x[first]! + width;
    let low = first;
    let high = first;
    for (index = first + 1; index < end && x[index]! < until; index++) {
      const value = y[index];
      if (isGap(value)) break;
      if (value < y[low]!) low = index;
      else if (value > y[high]!) high = index;
    }
    keep(kept, Math.min(low, high), Math.max(low, high));
  }
  if (begin < end) keep(kept, end - 1);
}

function keep(kept: number[], index: number, next = index): void {
  if (kept[kept.length - 1] !== index) kept.push(index);
  if (next !== index) kept.push(next);
}

/** Return the first place whose value is at least `wanted`. */
export function lowerBound(ascending: ArrayLike<number>, wanted: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
