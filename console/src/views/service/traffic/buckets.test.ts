import { expect, it } from "vitest";
import { bucketsOf } from "./buckets";

it("labels the range of each bucket, and omits the empty ones at the end", () => {
  const buckets = [
    { up_to: 1, count: 5 },
    { up_to: 2, count: 0 },
    { up_to: 4, count: 3 },
    { up_to: 8, count: 0 },
    { up_to: null, count: 0 },
  ];
  expect(bucketsOf(buckets)).toEqual([
    { label: "1", count: 5 },
    { label: "2", count: 0 },
    { label: "3 to 4", count: 3 },
  ]);
  expect(
    bucketsOf([
      { up_to: 64, count: 1 },
      { up_to: null, count: 2 },
    ]).map(({ label }) => label),
  ).toEqual(["1 to 64", "65 and more"]);
  expect(bucketsOf([])).toEqual([]);
});
