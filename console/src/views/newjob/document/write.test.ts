import { expect, it } from "vitest";
import { parse } from "yaml";
import { specText } from "./write";

it("writes short parts on one line, and long ones as blocks", () => {
  const spec = {
    name: "emoji",
    teacher: { model: "local-dir:/x" },
    data: { train: { shards: `/a/long/path/${"x".repeat(100)}.tar`, augment: { crop_scale: [0.9, 1], gray: 0.1 } }, shuffle: 10 },
    stages: [{ name: "half", train: { steps: 3 } }],
    optimizer: { lr: 5e-4 },
  };
  expect(specText(spec)).toBe(`name: emoji
teacher: {model: local-dir:/x}
data:
  train:
    shards: /a/long/path/${"x".repeat(100)}.tar
    augment: {crop_scale: [0.9, 1], gray: 0.1}
  shuffle: 10
stages:
  - {name: half, train: {steps: 3}}
optimizer: {lr: 0.0005}
`);
  expect(parse(specText(spec))).toEqual(spec);
});
