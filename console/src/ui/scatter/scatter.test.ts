import { expect, it } from "vitest";
import { placeNames } from "./names";
import { frontSteps, paretoFront } from "./pareto";
import { linearScale, linearTicks, logScale, logTicks } from "./scale";

it("keeps the points that none other beats", () => {
  const [small, worse, large, same] = [
    { x: 1, y: 0.4 },
    { x: 2, y: 0.3 },
    { x: 4, y: 0.6 },
    { x: 5, y: 0.6 },
  ];
  expect(paretoFront([same, large, worse, small])).toEqual([small, large]);
  expect(
    paretoFront([
      { x: 1, y: 0.4 },
      { x: 1, y: 0.5 },
    ]),
  ).toEqual([{ x: 1, y: 0.5 }]);
  expect(paretoFront([{ x: NaN, y: 1 }])).toEqual([]);
});

it("draws the front as steps up to the right edge", () => {
  expect(
    frontSteps(
      [
        { x: 1, y: 1 },
        { x: 3, y: 2 },
      ],
      9,
    ),
  ).toEqual([
    { x: 1, y: 1 },
    { x: 3, y: 1 },
    { x: 3, y: 2 },
    { x: 9, y: 2 },
  ]);
});

it("has round ticks", () => {
  expect(logTicks([0.9, 11])).toEqual([1, 2, 5, 10]);
  expect(logTicks([1, 1e9])).toEqual([1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);
  expect(logTicks([10, 14])).toEqual([10, 11, 12, 13, 14]);
  expect(linearTicks([0.31, 0.52])).toEqual([0.35, 0.4, 0.45, 0.5]);
});

it("places equal values and single points within the axis", () => {
  const x = logScale([5, 5], [0, 100]);
  expect(x(5)).toBeCloseTo(50);
  const y = linearScale([1], [100, 0], [0, 1]);
  expect(y.domain[1]).toBe(1);
  expect(y(1)).toBe(0);
});

it("writes names where they cover no other, and leaves out those without room", () => {
  const at = (key: string, left: number, top = 50) => ({ key, label: "abcdef", left, top });
  expect(placeNames([at("a", 10), at("b", 90)], [0, 140]).map(({ key, anchor, dy }) => [key, anchor, dy])).toEqual([
    ["a", "start", 10],
    ["b", "start", 10],
  ]);
  expect(placeNames([at("a", 120)], [0, 140]).map(({ anchor }) => anchor)).toEqual(["end"]);
  expect(placeNames([at("a", 20)], [0, 30])).toEqual([]);
});
