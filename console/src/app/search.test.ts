import { expect, it } from "vitest";
import { list, number, oneOf, parseSearch, stringifySearch, text } from "./search";

it("reads what it wrote", () => {
  const search = { state: ["running", "queued"], search: "a b&c=d", top: 5, label: undefined };
  expect(parseSearch(stringifySearch(search))).toEqual({ state: ["running", "queued"], search: "a b&c=d", top: "5" });
});

it("leaves out what has another form", () => {
  expect(text(["a", "b"])).toBe("a");
  expect(text(undefined)).toBeUndefined();
  expect(number("ten")).toBeUndefined();
  expect(number("10")).toBe(10);
  expect(list("x")).toEqual(["x"]);
  expect(list([1, ""])).toBeUndefined();
  expect(oneOf("params", ["latency", "params"])).toBe("params");
  expect(oneOf("other", ["latency"])).toBeUndefined();
});
