import { expect, it } from "vitest";
import { parse } from "./parse";
import { placeOf, pointerParts } from "./pointers";

const SPEC = `name: emoji   # a comment
stages:
  - name: half
    student:
      image: {layers: 6, width: 128}
  - name: quarter
    train: {steps: 10}
data:
  train:
    "caption/key~": x
`;

function shown(pointer: string, text = SPEC): string {
  const { from, to } = placeOf(parse(text).document, text, pointerParts(pointer));
  return text.slice(from, to);
}

it("finds a value that is written on one line", () => {
  expect(shown("/name")).toBe("emoji");
  expect(shown("/stages/0/student/image/layers")).toBe("6");
  expect(shown("/stages/0/student/image")).toBe("{layers: 6, width: 128}");
});

it("shows the key of a block, and the first line of an item", () => {
  expect(shown("/stages")).toBe("stages");
  expect(shown("/stages/0/student")).toBe("student");
  expect(shown("/stages/1")).toBe("name: quarter");
});

it("shows a missing field at what should contain it", () => {
  expect(shown("/stages/1/train/epochs")).toBe("{steps: 10}");
  expect(shown("/stages/1/student/image/layers")).toBe("name: quarter");
  expect(shown("/teacher")).toBe("name: emoji   # a comment");
  expect(shown("")).toBe("name: emoji   # a comment");
});

it("reads escapes of pointers", () => {
  expect(pointerParts("/a~1b/c~0d")).toEqual(["a/b", "c~d"]);
  expect(shown("/data/train/caption~1key~0")).toBe("x");
});

it("finds places in JSON, which is YAML", () => {
  const text = '{"name": "emoji",\n "stages": [{"train": {"steps": 10}}]}';
  expect(shown("/stages/0/train/steps", text)).toBe("10");
});

it("has places also in a document with errors", () => {
  const text = "name: x\nstages: [a\nbatch_size: 3\n";
  const parsed = parse(text);
  expect(parsed.value).toBeUndefined();
  expect(parsed.mistakes.length).toBeGreaterThan(0);
  for (const { from, to } of parsed.mistakes) expect(to).toBeGreaterThanOrEqual(from);
});
