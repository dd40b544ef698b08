import { expect, it } from "vitest";
import { fieldsOf, fromFilter, parseFilter, parseValue, readFilter, toFilter, type Condition } from "./filters";

const row = (path: string, operator: Condition["operator"], value: string): Condition => ({ path, operator, value });

it("writes the API's filter", () => {
  const rows = [
    row("year", "≥", "2000"),
    row("year", "<", "2010"),
    row("tags", "in", "red, blue"),
    row("camera.make", "=", "Leica"),
    row("author", "≠", "me"),
    row("", "=", "x"),
    row("y", "=", " "),
  ];
  expect(toFilter(rows)).toEqual({
    filter: { year: { gte: 2000, lt: 2010 }, tags: ["red", "blue"], "camera.make": "Leica", author: { ne: "me" } },
    problem: null,
  });
  expect(toFilter([])).toEqual({ filter: null, problem: null });
});

it("combines a value with a range, and refuses the same operator twice", () => {
  expect(toFilter([row("year", "=", "1"), row("year", ">", "0")]).filter).toEqual({ year: { in: [1], gt: 0 } });
  expect(toFilter([row("year", ">", "1"), row("year", ">", "0")]).problem).toMatch(/year has two conditions >/);
});

it("reads values by the kind of the field", () => {
  expect([
    parseValue("2020"),
    parseValue("2020", "text"),
    parseValue('"2020"'),
    parseValue("true"),
    parseValue("true", "text"),
    parseValue("-1.5e3"),
    parseValue("1.2.3"),
  ]).toEqual([2020, "2020", "2020", true, "true", -1500, "1.2.3"]);
});

it("reads back what it wrote", () => {
  const filter = { year: { gte: 2000, lt: 2010 }, tags: ["red", "blue"], id: "7", ok: true, author: { ne: "me" } };
  const rows = fromFilter(filter)!;
  expect(rows).toContainEqual(row("id", "=", '"7"'));
  expect(toFilter(rows).filter).toEqual(filter);
  expect(fromFilter({ a: { near: 1 } })).toBeNull();
  expect(fromFilter({ a: { b: { c: 1 } } })).toBeNull();
});

it("collects fields from metadata", () => {
  const fields = fieldsOf([
    { year: 1, tags: ["a"], camera: { iso: 100 } },
    { year: "1999", ok: false, none: null },
  ]);
  expect(Object.fromEntries(fields)).toEqual({ year: "text", tags: "text", "camera.iso": "number", ok: "boolean" });
});

it("explains JSON that is no filter, and ignores it in an address", () => {
  expect(() => parseFilter("[1]")).toThrow(/object/);
  expect(parseFilter("{}")).toBeNull();
  expect(readFilter("{broken")).toBeNull();
  expect(readFilter('{"a": 1}')).toEqual({ a: 1 });
});
