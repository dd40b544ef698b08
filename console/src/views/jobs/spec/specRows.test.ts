import { expect, it } from "vitest";
import { differingFields, flatten, specRows } from "./specRows";

const submitted = { name: "tiny", stages: [{ name: "half", train: { epochs: 2 } }], optimizer: { lr: 0.001 } };
const resolved = {
  name: "tiny",
  seed: 0,
  stages: [{ name: "half", train: { steps: 100 } }],
  optimizer: { lr: 0.001, betas: [0.9, 0.98] },
};

it("puts each key beside itself, in YAML, and marks what differs", () => {
  expect(specRows(submitted, resolved).map(({ left, right, difference }) => [left, right, difference])).toEqual([
    ["name: tiny", "name: tiny", "same"],
    [null, "seed: 0", "added"],
    ["stages:", "stages:", "same"],
    ["  -", "  -", "same"],
    ["    name: half", "    name: half", "same"],
    ["    train:", "    train:", "same"],
    [null, "      steps: 100", "added"],
    ["      epochs: 2", null, "removed"],
    ["optimizer:", "optimizer:", "same"],
    ["  lr: 0.001", "  lr: 0.001", "same"],
    [null, "  betas: [ 0.9, 0.98 ]", "added"],
  ]);
});

it("marks values that changed, also into another form", () => {
  expect(specRows({ a: 1 }, { a: { b: 2 } })).toEqual([
    { left: "a: 1", right: "a:", difference: "changed" },
    { left: null, right: "  b: 2", difference: "changed" },
  ]);
});

it("names the fields in which documents differ", () => {
  expect([...flatten({ a: { b: [1, 2] }, c: [{ d: null }] })]).toEqual([
    ["a.b", [1, 2]],
    ["c.0.d", null],
  ]);
  expect(
    differingFields([
      { a: 1, b: { c: [1] } },
      { a: 1, b: { c: [2] }, d: null },
    ]),
  ).toEqual([
    { path: "b.c", values: [[1], [2]] },
    { path: "d", values: [undefined, null] },
  ]);
});
