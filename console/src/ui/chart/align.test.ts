import { expect, it } from "vitest";
import { align, type Curve } from "./align";
import { smooth } from "./smooth";

const curve = (x: number[], y: (number | null)[]): Curve => ({ label: "", color: "", x, y });

it("keeps curves of the same steps as they are", () => {
  const x = [1, 2, 3];
  expect(align([curve(x, [4, 5, 6]), curve([1, 2, 3], [7, null, 9])])).toEqual([x, [4, 5, 6], [7, null, 9]]);
});

it("puts curves of different steps on one axis, with gaps as undefined", () => {
  expect(align([curve([1, 3], [10, 30]), curve([2, 3, 4], [20, 33, 40])])).toEqual([
    [1, 2, 3, 4],
    [10, undefined, 30, undefined],
    [undefined, 20, 33, 40],
  ]);
});

it("smooths without a bias at the start", () => {
  expect(Array.from(smooth([2, 2, 2], 0.9))).toEqual([2, 2, 2].map((value): unknown => expect.closeTo(value, 12)));
  expect(smooth([1, null, 3], 0)).toEqual([1, null, 3]);
  expect(Array.from(smooth([1, null, 1], 0.5))).toEqual([1, NaN, 1]);
});
