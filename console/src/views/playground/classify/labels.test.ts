import { expect, it } from "vitest";
import { labelProblem, parseLabels, parseTemplates, templateProblem } from "./labels";

it("reads labels from commas and lines, each once", () => {
  expect(parseLabels(" a cat, a dog\n\na house,a cat, ")).toEqual(["a cat", "a dog", "a house"]);
  expect(parseLabels(" ,\n")).toEqual([]);
});

it("reads templates from lines; a comma is part of one", () => {
  expect(parseTemplates("a photo of {}, large\n{}")).toEqual(["a photo of {}, large", "{}"]);
  expect(parseTemplates(" ")).toEqual(["{}"]);
});

it("explains what the API would refuse", () => {
  expect(templateProblem("a photo of {}.\na drawing")).toMatch(/a drawing/);
  expect(templateProblem("{}")).toBeNull();
  expect(labelProblem("")).toMatch(/at least one/);
  expect(labelProblem(Array.from({ length: 10_001 }, (_, i) => i).join(","))).toMatch(/10001 labels/);
});
