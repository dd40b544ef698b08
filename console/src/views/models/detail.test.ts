import { expect, it } from "vitest";
import type { Schemas } from "../../api/client";
import { keptOfTower, layoutRows, uniformSentence, type Layout } from "./layoutRows";
import { lineageOf, NODE, placeNodes } from "./lineage";
import { classesOfSpec, countedClasses, difference, joinPerClass, sortClasses } from "./perClass";

const layout = (heads: number[], mlp: number[], width = 64): Layout => ({
  embed_dim: 64,
  quick_gelu: false,
  logit_bias: false,
  image: {
    kind: "vit",
    image_size: 64,
    width,
    layers: [heads.length],
    head_width: 32,
    patch_size: 8,
    heads,
    mlp,
    tanh_gelu: false,
  },
  text: {
    context_length: 16,
    vocab_size: 100,
    width,
    layers: heads.length,
    head_width: 32,
    heads,
    mlp,
    bidirectional: false,
    tanh_gelu: false,
  },
});

it("joins classes by their row, with the names that are known", () => {
  const student = {
    per_class: [0.5, null, 1],
    worst_classes: [{ class: "cat", row: 0, mistaken_for: [{ class: "owl", row: 2, share: 0.1 }] }],
  };
  expect(joinPerClass([student, { per_class: [0.75, null, 0.5] }], [])).toEqual([
    { label: "cat", images: null, shares: [0.5, 0.75] },
    { label: "owl", images: null, shares: [1, 0.5] },
  ]);
  expect(joinPerClass([student, null], ["a", "b", "c"]).map(({ label, shares }) => [label, shares])).toEqual([
    ["a", [0.5, null]],
    ["c", [1, null]],
  ]);
  expect(joinPerClass([student, { per_class: [1] }], [])).toEqual([]);
  expect(joinPerClass([{}], [])).toEqual([]);
});

it("counts classes from predictions and sorts them", () => {
  const rows = countedClasses([
    { label: "b", images: 4, correct: [1, 3] },
    { label: "a", images: 2, correct: [2, 2] },
    { label: "c", images: 8, correct: [0, 0] },
  ]);
  expect(difference(rows[0]!)).toBeCloseTo(-0.5);
  const labels = (order: Parameters<typeof sortClasses>[1]) =>
    sortClasses(rows, order)
      .map(({ label }) => label)
      .join("");
  expect([labels("worst"), labels("difference"), labels("gain"), labels("images"), labels("label")]).toEqual([
    "cba",
    "bac",
    "acb",
    "cba",
    "abc",
  ]);
});

it("finds the classes of a task in a spec", () => {
  const lineage = {
    spec: {
      evaluation: {
        tasks: [
          { name: "pets", classes: ["cat", "dog"] },
          { name: "words", classes: { de: ["Hund"] } },
          { name: "far", classes: "classes.txt" },
        ],
      },
    },
  };
  expect(classesOfSpec(lineage, "pets")).toEqual(["cat", "dog"]);
  expect(classesOfSpec(lineage, "words.de")).toEqual(["Hund"]);
  expect(classesOfSpec(lineage, "far")).toEqual([]);
  expect(classesOfSpec({}, "pets")).toEqual([]);
});

it("shows what each block has kept, and blocks that are gone", () => {
  const [image] = layoutRows(layout([1, 2], [10, 20]), layout([2, 2, 2], [40, 40, 40], 128), { image: [0, 2], text: [0, 2] });
  expect(image).toMatchObject({ name: "image", width: 64, widthBefore: 128 });
  expect(image!.blocks.map(({ source, own, heads, allUnits }) => [source, own, heads, allUnits])).toEqual([
    [0, 0, 1, 40],
    [1, null, 0, 40],
    [2, 1, 2, 40],
  ]);
  expect(keptOfTower(image!)).toEqual({ heads: [3, 6], units: [30, 120] });
});

it("takes equal depths block by block, and compares with the largest where nothing is known", () => {
  expect(
    layoutRows(layout([1, 2], [10, 20]), layout([2, 2], [40, 40]), null)[1]!.blocks.map(({ own, allHeads }) => [own, allHeads]),
  ).toEqual([
    [0, 2],
    [1, 2],
  ]);
  expect(
    layoutRows(layout([1, 2], [10, 20]), null, null)[0]!.blocks.map(({ allHeads, allUnits }) => [allHeads, allUnits]),
  ).toEqual([
    [2, 20],
    [2, 20],
  ]);
  expect(layoutRows(layout([1], [10]), layout([2, 3], [40, 40]), null)[0]!.blocks).toEqual([
    { source: 0, own: 0, heads: 1, units: 10, allHeads: 3, allUnits: 40 },
  ]);
  expect(uniformSentence(layout([2, 2], [128, 128]).image)).toBe("2 equal blocks of 2 heads and 128 MLP units, 64 channels");
  expect(uniformSentence(layout([1, 2], [10, 10]).image)).toBeNull();
});

const version = (lineage: Record<string, unknown>): Schemas["ModelVersion"] =>
  ({
    name: "emoji",
    version: 3,
    aliases: ["best"],
    job: "job-1",
    teacher: "big@2",
    lineage,
  }) as unknown as Schemas["ModelVersion"];

it("draws a version from its teacher, data set, spec and job to its deployments", () => {
  const made = version({
    teacher: { name: "big", sha256: "abcdef0123456789" },
    dataset: { name: "pairs", version: 4, pairs: 1200 },
    spec: { name: "half", teacher: { model: "registry:big@2" }, stages: [{ name: "one", inherit: "auto" }, { name: "two" }] },
  });
  const { nodes, arrows } = lineageOf(made, ["emoji"]);
  expect(nodes.map(({ kind, label, column }) => [kind, label, column])).toEqual([
    ["teacher", "big", 0],
    ["data set", "pairs@4", 0],
    ["spec", "half", 0],
    ["job", "job-1", 1],
    ["model version", "emoji@3", 2],
    ["deployment", "emoji", 3],
  ]);
  expect(nodes[0]!.link).toEqual({ to: "model", reference: { name: "big", version: "2" } });
  expect(nodes[2]!.note).toBe("one (auto) → two (manual)");
  expect(arrows.map(({ from, to }) => `${from} ${to}`)).toContain("maker version");
});

it("draws an import, and shards without a data set", () => {
  const imported = lineageOf({ ...version({ import: { file: "model.pt" } }), job: null });
  expect(imported.nodes.map(({ kind }) => kind)).toEqual(["import", "model version"]);
  expect(lineageOf(version({ data: [{ url: "s3://b/0.tar" }, { url: "s3://b/1.tar" }] })).nodes[0]).toMatchObject({
    label: "0.tar",
    note: "and 1 more shards",
  });
});

it("places nodes in columns, or below each other without the room", () => {
  const { nodes } = lineageOf(version({ teacher: { name: "big", sha256: "" }, data: [{ url: "a.tar" }] }));
  const wide = placeNodes(nodes, 1000);
  expect(wide.isNarrow).toBe(false);
  expect(wide.height).toBe(2 * NODE.height + NODE.gapY);
  expect(placeNodes(nodes, 300).nodes.map(({ left }) => left)).toEqual([0, 0, 0, 0]);
});
