import { expect, it } from "vitest";
import { withDataset, withoutPlaceholder, withValue } from "./edit";

const TRAIN = `name: x
data:
  train:
    shards: /a/{0..3}.tar    # which ones
    image_key:
      - jpg
    holdout: 0.1                     # a tenth
    # how images change
    augment: {gray: 0.1}
  shuffle: 10
`;

it("puts a data set in place of shards and what belongs to them", () => {
  expect(withDataset(TRAIN, "emoji@latest")).toBe(`name: x
data:
  train:
    dataset: emoji@latest
    # how images change
    augment: {gray: 0.1}
  shuffle: 10
`);
});

it("changes one data set for another", () => {
  expect(withDataset(withDataset(TRAIN, "a@1"), "b@latest")).toBe(withDataset(TRAIN, "b@latest"));
});

it("works between braces and without a section of data", () => {
  expect(withDataset("data: {train: {shards: x, augment: {gray: 1}}} # c\n", "a@1")).toBe(
    "data: { train: { augment: { gray: 1 }, dataset: a@1 } } # c\n",
  );
  expect(withDataset("name: x # a name\n", "a@1")).toBe("name: x # a name\ndata:\n  train:\n    dataset: a@1\n");
});

it("changes one value and nothing else", () => {
  expect(withValue("teacher: {model: a,   pretrained: b} # c\n", ["teacher", "model"], "registry:x@latest")).toBe(
    "teacher: {model: registry:x@latest,   pretrained: b} # c\n",
  );
  expect(withValue("name: x\n", ["teacher", "model"], "registry:x@latest")).toBe(
    "name: x\nteacher:\n  model: registry:x@latest\n",
  );
});

it("fills in a placeholder everywhere", () => {
  expect(withoutPlaceholder("a: /path/to/TinyCLIP/x\nb: /path/to/TinyCLIP/y", "/path/to/TinyCLIP", " /srv/$1/ ")).toBe(
    "a: /srv/$1/x\nb: /srv/$1/y",
  );
});
