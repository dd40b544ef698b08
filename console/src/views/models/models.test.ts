import { expect, it } from "vitest";
import type { Schemas } from "../../api/client";
import { columnsOf, compareGroups } from "./compareRows";
import { newestOfEach, pieces, search } from "./choose";
import { formatMetric, keptShare, metricLabel, numbersOf, points, sharesOf } from "./metrics";
import { parseReference, registeredTeacher } from "./references";
import { isImageNet, metricsOf, plotted, PUBLISHED, tasksOf, TEACHERS, usualCost, VERSIONS, type Compared } from "./tradeoff";

const model = (name: string, versions: number[]): Schemas["Model"] => ({
  name,
  versions,
  latest: versions.at(-1)!,
  aliases: {},
  created_at: "",
});
const params = (image: number, text: number) => ({ image, text: text * 2, text_without_embedding: text });

const compared = (name: string, rest: Partial<Compared> = {}): Compared => ({
  name,
  version: 1,
  params: params(10e6, 5e6),
  macs: 2e9,
  embed_dim: 64,
  image_size: 64,
  context_length: 77,
  embedding_sizes: [],
  evaluation: { pets: { top1: 0.5, top5: 0.8, samples: 100 } },
  teacher: "ViT-B-32@openai",
  teacher_params: params(80e6, 40e6),
  teacher_macs: 9e9,
  teacher_evaluation: { pets: { top1: 0.6 } },
  teacher_latency_ms: 30,
  latency_ms: 3,
  created_at: "",
  ...rest,
});

it("names and formats metrics", () => {
  expect(sharesOf({ top5: 1, top1: 0.5, samples: 3, per_class: [1] })).toEqual(["top1", "top5"]);
  expect(numbersOf({ samples: 3, top1: 0.5, ms_per_image: 2, skipped: 0 })).toEqual(["top1", "samples"]);
  expect(metricLabel("image_to_text_r5")).toBe("image to text R@5");
  expect(formatMetric("top1", 0.4567)).toBe("45.7 %");
  expect(points(-0.0123)).toBe("−1.2");
  expect(points(0.0001)).toBe("±0.0");
});

it("gives the share of the teacher's number that a student keeps", () => {
  expect(keptShare(0.45, 0.5)).toBeCloseTo(0.9);
  expect(keptShare(0.45, 0)).toBeNull();
  expect(keptShare(null, 0.5)).toBeNull();
});

it("reads references", () => {
  expect(parseReference("emoji@best")).toEqual({ name: "emoji", version: "best" });
  expect(parseReference("emoji")).toEqual({ name: "emoji", version: "latest" });
  expect(registeredTeacher("registry:emoji@3")).toEqual({ name: "emoji", version: "3" });
  expect(registeredTeacher("ViT-B-32@openai")).toBeNull();
});

it("chooses the newest versions of all models first", () => {
  expect(newestOfEach([model("a", [1, 2, 3]), model("b", [7])], 3)).toEqual(["a@3", "b@7", "a@2"]);
  expect(newestOfEach([model("a", [1])], 5)).toEqual(["a@1"]);
  expect(pieces([1, 2, 3], 2)).toEqual([[1, 2], [3]]);
  expect(search([model("emoji", [1]), model("pets", [1])], " EMO").map(({ name }) => name)).toEqual(["emoji"]);
});

it("plots versions, and a teacher of several once", () => {
  const models = [compared("a"), compared("b", { evaluation: { pets: { top1: 0.55 } }, latency_ms: null })];
  expect(tasksOf(models)).toEqual(["pets"]);
  expect(metricsOf(models, "pets")).toEqual(["top1", "top5"]);
  const shown = plotted(models, "pets", "top1", "params");
  expect(shown.map(({ group, x, y }) => [group, x, y])).toEqual([
    [VERSIONS, 15e6, 0.5],
    [VERSIONS, 15e6, 0.55],
    [TEACHERS, 120e6, 0.6],
  ]);
  expect(shown[2]!.details.at(-1)).toEqual(["teacher of", "a@1 and 1 more"]);
  expect(plotted(models, "pets", "top1", "latency").map(({ label }) => label)).toEqual(["a@1", "ViT-B-32@openai"]);
  expect(usualCost(models)).toBe("params");
});

it("shows published numbers of ImageNet only, against parameters", () => {
  const on = (task: string) => [compared("a", { evaluation: { [task]: { top1: 0.5 } } })];
  const count = (task: string, metric: string, cost: "params" | "macs") =>
    plotted(on(task), task, metric, cost).filter(({ group }) => group === PUBLISHED).length;
  expect(count("imagenet", "top1", "params")).toBe(11);
  expect(count("imagenet", "top1", "macs")).toBe(0);
  expect(count("imagenet-v2", "top1", "params")).toBe(0);
  expect(["ImageNet-1k", "imagenet1k", "imagenet_val"].every(isImageNet)).toBe(true);
});

it("puts versions side by side with their teacher once, and marks the best", () => {
  const columns = columnsOf([compared("a"), compared("b", { evaluation: { pets: { top1: 0.55, samples: 100 } }, macs: 1e9 })]);
  expect(columns.map(({ label, isTeacher }) => [label, isTeacher])).toEqual([
    ["a@1", false],
    ["b@1", false],
    ["ViT-B-32@openai", true],
  ]);
  const [facts, pets] = compareGroups(columns);
  const macs = facts!.rows.find(({ label }) => label === "MACs")!;
  expect(macs.cells.map(({ text, isBest, change }) => [text, isBest, change])).toEqual([
    ["2G", false, ""],
    ["1G", true, "× 0.500"],
    ["9G", false, "× 4.50"],
  ]);
  const top1 = pets!.rows[0]!;
  expect(top1.cells.map(({ text, isBest, change }) => [text, isBest, change])).toEqual([
    ["50.0 %", false, ""],
    ["55.0 %", true, "+5.0 points"],
    ["60.0 %", false, "+10.0 points"],
  ]);
  expect(pets!.rows.find(({ label }) => label === "images")!.differs).toBe(false);
});
