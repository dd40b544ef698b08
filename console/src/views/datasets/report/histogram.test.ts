import { expect, it } from "vitest";
import { binsOf, highest, outline } from "./histogram";

it("gives counts as shares of their group", () => {
  const bins = binsOf([0, 0.1, 0.2], [1, 3], [4, 0]);
  expect(bins).toEqual([
    { from: 0, to: 0.1, trueCount: 1, shuffledCount: 4, trueShare: 0.25, shuffledShare: 1 },
    { from: 0.1, to: 0.2, trueCount: 3, shuffledCount: 0, trueShare: 0.75, shuffledShare: 0 },
  ]);
  expect(highest(bins)).toBe(1);
});

it("is empty without edges, and survives missing counts", () => {
  expect(binsOf([], [], [])).toEqual([]);
  expect(binsOf([0, 1], [], [])).toMatchObject([{ trueCount: 0, trueShare: 0 }]);
});

it("draws steps", () => {
  const bins = binsOf([0, 1, 2], [1, 1], [2, 0]);
  expect(outline(bins, (bin) => bin.trueShare, 100, 50)).toBe("M0 50L0 25L50 25L50 25L100 25L100 50Z");
});
