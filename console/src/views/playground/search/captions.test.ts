import { expect, it } from "vitest";
import { captionOf, flat, shown } from "./captions";

it("prefers fields that are named like captions", () => {
  expect(captionOf({ id: "7", name: "IMG 7", caption: "a bicycle in the rain" })).toBe("a bicycle in the rain");
  expect(captionOf({ captions: ["first", "second"] })).toBe("first");
  expect(captionOf({ captions: { en: ["a dog"], de: ["ein Hund"] } })).toBe("a dog");
  expect(captionOf({ Title: "Rain" })).toBe("Rain");
  expect(captionOf({ short_caption: "rain", url: "https://a b" })).toBe("rain");
});

it("takes a sentence if no field has such a name", () => {
  expect(captionOf({ sha: "abc", note: "two words", source: "https://example.org/a b c d" })).toBe("two words");
  expect(captionOf({ year: 2020, tags: [] })).toBeNull();
  expect(captionOf({ caption: " ", year: 1 })).toBeNull();
});

it("flattens nested keys as filters name them", () => {
  expect(flat({ year: 1, camera: { make: "Leica", lens: { mm: 50 } }, tags: ["a", "b"] })).toEqual([
    ["year", 1],
    ["camera.make", "Leica"],
    ["camera.lens.mm", 50],
    ["tags", ["a", "b"]],
  ]);
  expect([shown(["a", 1]), shown({ a: 1 }), shown("x"), shown(null)]).toEqual(["a, 1", '{"a":1}', "x", "null"]);
});
