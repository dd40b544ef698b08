import { expect, it } from "vitest";
import { examplesFolder, filledTemplate } from "./fill";
import { TEMPLATES } from ".";

const EXAMPLES = [
  { name: "caltech101/half.yaml", spec: "data: {train: {shards: /x/caltech101/data/a.tar}}" },
  { name: "emoji/half.yaml", spec: 'data:\n  train:\n    shards: "/srv/my clone/examples/emoji/data/train-{0..3}.tar.gz"\n' },
];
const textOf = (name: string) => TEMPLATES.find((template) => template.name === name)!.text;

it("finds the folder of the examples in their specs", () => {
  expect(examplesFolder(EXAMPLES)).toBe("/srv/my clone/examples");
  expect(examplesFolder([])).toBeNull();
});

it("fills in the folder of the examples, and then needs no data set", () => {
  const text = filledTemplate(textOf("half"), EXAMPLES, ["photos"]);
  expect(text).toContain("shards: /srv/my clone/examples/emoji/data/train-{000000..000003}.tar.gz");
  expect(text).not.toContain("/path/to");
  expect(text).not.toContain("photos@latest");
});

it("takes a registered data set where addresses are missing", () => {
  expect(filledTemplate(textOf("photos"), EXAMPLES, ["photos"])).toContain("    dataset: photos@latest\n");
  expect(filledTemplate(textOf("published"), [], ["a", "b"])).toContain("    dataset: a@latest\n");
});

it("is the template itself in a service that has nothing", () => {
  for (const { text } of TEMPLATES) expect(filledTemplate(text, [], [])).toBe(text);
});
