import { expect, it } from "vitest";
import { align } from "./align";
import { rows, summary } from "./summary";

it("reads the newest value of each curve", () => {
  const curve = { label: "loss", color: "", x: [1, 2, 3], y: [3, 2, NaN] };
  expect(summary("Loss", [curve, { ...curve, label: "empty", x: [], y: [] }], String)).toBe(
    "Loss. loss: 2 at 2; empty: no points",
  );
});

it("has some steps of long curves as a table, the first and the last among them", () => {
  const x = Array.from({ length: 1_000 }, (_, index) => index);
  const found = rows(align([{ label: "", color: "", x, y: x }]), 5);
  expect(found).toHaveLength(5);
  expect([found[0], found[4]]).toEqual([
    [0, 0],
    [999, 999],
  ]);
  expect(rows([[7], [1]])).toEqual([[7, 1]]);
  expect(rows([[]])).toEqual([]);
});
