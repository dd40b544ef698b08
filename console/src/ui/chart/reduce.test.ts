import { expect, it } from "vitest";
import type { Curve } from "./align";
import { lowerBound, reduce } from "./reduce";

const steps = Float64Array.from({ length: 10_000 }, (_, index) => index);
const curve = (y: (index: number) => number | null): Curve => ({ label: "", color: "", x: steps, y: Array.from(steps, y) });
const whole = { from: 0, to: 9_999, columns: 100 };

it("keeps a peak of one point, the first and the last", () => {
  const found = reduce(
    curve((index) => (index === 4_321 ? 50 : Math.sin(index))),
    whole,
  );
  expect(found.x.length).toBeLessThan(250);
  expect(Array.from(found.y)).toContain(50);
  expect([found.x[0], found.x[found.x.length - 1]]).toEqual([0, 9_999]);
  expect(Array.from(found.x)).toEqual([...new Set(Array.from(found.x))].sort((a, b) => a - b));
});

it("keeps every point of a narrow view, and the extent of the rest", () => {
  const found = Array.from(
    reduce(
      curve((index) => index),
      { from: 5_000, to: 5_050, columns: 100 },
    ).x,
  );
  expect(found.filter((x) => x >= 5_000 && x < 5_050)).toHaveLength(50);
  expect([found[0], found.at(-1)]).toEqual([0, 9_999]);
});

it("keeps gaps, and leaves out what a logarithmic axis cannot show", () => {
  expect(
    reduce(
      curve((index) => (index > 4_000 && index < 6_000 ? null : 1)),
      whole,
    ).y,
  ).toContain(null);
  expect(Array.from(reduce({ ...curve(() => 0), x: [1, 2, 3], y: [0, -1, 2] }, { ...whole, positive: true }).y)).toEqual([
    null,
    null,
    2,
  ]);
});

it("finds the place of a value", () => {
  expect([0, 1, 2, 5, 6].map((value) => lowerBound([1, 3, 5], value))).toEqual([0, 0, 1, 2, 3]);
});
