import { expect, it } from "vitest";
import { contextAt } from "../document/context";
import type { Schema } from "./schema";
import { fieldAt, suggest } from "./suggest";
import { nearest, unknownFields } from "./unknown";

const SCHEMA: Schema = {
  type: "object",
  additionalProperties: false,
  required: ["name"],
  properties: {
    name: { type: "string", description: "Of the job\nand its model." },
    teacher: { anyOf: [{ $ref: "#/$defs/Teacher" }, { type: "null" }] },
    batch_size: { type: "integer", minimum: 1, default: 256 },
    stages: { type: "array", items: { $ref: "#/$defs/Stage" } },
    tasks: {
      type: "array",
      items: {
        discriminator: { propertyName: "kind", mapping: { zero_shot: "#/$defs/ZeroShot", retrieval: "#/$defs/Retrieval" } },
        oneOf: [{ $ref: "#/$defs/ZeroShot" }, { $ref: "#/$defs/Retrieval" }],
      },
    },
    labels: { type: "object", additionalProperties: { type: "string" } },
  },
  $defs: {
    Teacher: {
      type: "object",
      additionalProperties: false,
      properties: { model: { type: "string" }, language: { anyOf: [{ type: "string" }, { type: "null" }] } },
    },
    Stage: {
      type: "object",
      additionalProperties: false,
      properties: {
        inherit: { enum: ["manual", "auto", "none"], type: "string", default: "manual" },
        lr: { anyOf: [{ type: "number" }, { const: "auto", type: "string" }] },
        towers: { type: "array", items: { enum: ["image", "text"], type: "string" } },
      },
    },
    ZeroShot: {
      type: "object",
      additionalProperties: false,
      properties: { kind: { const: "zero_shot" }, classes: { type: "string" } },
    },
    Retrieval: {
      type: "object",
      additionalProperties: false,
      properties: { kind: { const: "retrieval" }, captions: { type: "string" } },
    },
  },
};

/** The labels that are offered where the text has a `|`. */
function offered(marked: string, known = {}): string[] {
  const cursor = marked.indexOf("|");
  const context = contextAt(marked.slice(0, cursor) + marked.slice(cursor + 1), cursor);
  const values = (path: (string | number)[]) =>
    (known as Record<string, string[]>)[path.join(".")]?.map((text) => ({ text, description: "" })) ?? [];
  return context === null ? [] : suggest(SCHEMA, context, values).map((one) => one.label);
}

it("offers the fields that a mapping does not have yet", () => {
  expect(offered("|")).toEqual(["name", "teacher", "batch_size", "stages", "tasks", "labels"]);
  expect(offered("name: x\nba|")).toEqual(["teacher", "batch_size", "stages", "tasks", "labels"]);
  expect(offered("name: x\n|\nstages: []\n")).toEqual(["teacher", "batch_size", "tasks", "labels"]);
});

it("knows where a line belongs by its indentation", () => {
  expect(offered("teacher:\n  |\nname: x\n")).toEqual(["model", "language"]);
  expect(offered("stages:\n  - inherit: auto\n    |")).toEqual(["lr", "towers"]);
  expect(offered("stages:\n  - |")).toEqual(["inherit", "lr", "towers"]);
  expect(offered("stages:\n  - inherit: auto\n|")).toEqual(["name", "teacher", "batch_size", "tasks", "labels"]);
});

it("works between braces and while the rest has errors", () => {
  expect(offered("teacher: {model: x, |}")).toEqual(["language"]);
  expect(offered("stages: [{inherit: |}]")).toEqual(["manual", "auto", "none"]);
  expect(offered("teacher: {mo|\nname: x")).toContain("model");
});

it("offers values that the schema lists", () => {
  expect(offered("stages:\n  - inherit: |")).toEqual(["manual", "auto", "none"]);
  expect(offered("stages:\n  - inherit: a|\n    lr: 1")).toEqual(["manual", "auto", "none"]);
  expect(offered("stages:\n  - lr: |")).toEqual(["auto"]);
  expect(offered("stages:\n  - towers:\n      - |")).toEqual(["image", "text"]);
  expect(offered("stages:\n  - towers: [image, |]")).toEqual(["image", "text"]);
});

it("follows the field that decides between forms", () => {
  expect(offered("tasks:\n  - kind: retrieval\n    |")).toEqual(["captions"]);
  expect(offered("tasks:\n  - |")).toEqual(["kind", "classes", "captions"]);
  expect(offered("tasks:\n  - kind: |")).toEqual(["zero_shot", "retrieval"]);
});

it("offers what the service knows, and replaces the whole value", () => {
  expect(offered("teacher: {model: registry:em|}", { "teacher.model": ["registry:emoji@latest"] })).toEqual([
    "registry:emoji@latest",
  ]);
  const text = "teacher:\n  model: registry:em\n";
  const context = contextAt(text, text.length - 1)!;
  expect(text.slice(context.from, context.to)).toBe("registry:em");
});

it("offers nothing in a comment or in a free mapping", () => {
  expect(offered("name: x  # in|")).toEqual([]);
  expect(offered("labels:\n  |")).toEqual([]);
});

it("describes a field", () => {
  expect(fieldAt(SCHEMA, {}, ["name"])).toMatchObject({ description: "Of the job and its model.", required: true, type: "text" });
  expect(fieldAt(SCHEMA, {}, ["batch_size"])).toMatchObject({ type: "integer ≥ 1", default: 256, opens: "value" });
  expect(fieldAt(SCHEMA, {}, ["stages", 0, "lr"])).toMatchObject({ type: "number | auto" });
  expect(fieldAt(SCHEMA, {}, ["stages"])).toMatchObject({ opens: "list" });
  expect(fieldAt(SCHEMA, {}, ["teacher"])).toMatchObject({ opens: "block" });
});

it("finds unknown fields and what was meant", () => {
  const found = unknownFields(SCHEMA, {
    name: "x",
    batchsize: 1,
    stages: [{ inherit: "auto", foo: 1 }],
    labels: { any: "thing" },
    tasks: [{ kind: "retrieval", classes: "x" }],
  });
  expect(found.map(({ path, suggestion }) => [path.join("."), suggestion])).toEqual([
    ["batchsize", "batch_size"],
    ["stages.0.foo", null],
    ["tasks.0.classes", null],
  ]);
  expect(found[1]!.message).toBe("unknown field foo; known here: inherit, lr, towers");
  expect(unknownFields(SCHEMA, { teacher: null, name: 3 })).toEqual([]);
});

it("takes the nearest name only if it is near", () => {
  expect(nearest("temprature", ["temperature", "teacher"])).toBe("temperature");
  expect(nearest("zzz", ["temperature", "teacher"])).toBeNull();
});
