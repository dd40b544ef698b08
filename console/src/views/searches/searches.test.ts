import { expect, it } from "vitest";
import { withSpec, TEMPLATES } from "./create/templates";
import { requestOf } from "./create/request";
import { costsOf, usualCost } from "./front/costs";
import { limitsOf, pointsOf, shownGoals } from "./front/points";
import { goalsOf, neededFor, qualityOf } from "./quality";
import type { Constraint, Search, Trial } from "./requests";
import { originInWords, settingsInWords } from "./settings";
import { aimInWords, budgetInWords, constraintInWords, hoursInWords, variedInWords } from "./words";

const HARDWARE = { engine: "torch", batch: 1, tower: "image", threads: 1, device: "auto" } as const;
const constraint = (given: Partial<Constraint>): Constraint => ({ ...HARDWARE, ...given });

const trial = (number: number, rest: Partial<Trial> = {}): Trial => ({
  number,
  rung: 0,
  job: `job_${number}`,
  state: "succeeded",
  settings: {},
  error: "",
  model: { name: "emoji", version: number },
  params: 1e6,
  macs: 2e6,
  bytes: 4e6,
  quality: { pets: { top1: 0.5, samples: 100 } },
  device_hours: 0.1,
  measurements: [],
  ...rest,
});

const search = (rest: Partial<Search> = {}, post: Partial<Search["post"]> = {}): Search =>
  ({
    teacher_quality: { pets: { top1: 0.8 } },
    trials: [],
    front: [],
    recommended: null,
    ...rest,
    post: {
      constraints: [],
      vary: {},
      minimize: null,
      strategy: "auto",
      seed: 0,
      budget: { trials: 12, at_once: 1 },
      spec: {
        evaluation: {
          tasks: [
            { name: "pets", kind: "zero_shot" },
            { name: "pairs", kind: "retrieval" },
          ],
        },
      },
      ...post,
    } as Search["post"],
  }) as Search;

const KEEP = constraint({ task: "pets", keep: 0.95 });
const FAST = constraint({ latency_ms: { max: 4 }, engine: "openvino", batch: 8, threads: 2 });

it("says constraints in words", () => {
  const one = search({}, { constraints: [KEEP, FAST] });
  expect(
    [KEEP, FAST, constraint({ bytes: { max: 2e7 } }), constraint({ task: "pairs", min: 0.5 })].map((c) =>
      constraintInWords(c, one),
    ),
  ).toEqual([
    "Top-1 of pets: at least 95 % of the teacher's, which is 76.0 %",
    "Latency of the image tower: at most 4 ms (openvino, batch 8, 2 threads)",
    "File of weights: at most 20 MB",
    "Text to image R@10 of pairs: at least 50.0 %",
  ]);
  expect(constraintInWords(KEEP, search({ teacher_quality: {} }))).toBe("Top-1 of pets: at least 95 % of the teacher's");
});

it("says what is recommended, varied and spent", () => {
  expect(aimInWords(search({}, { constraints: [KEEP, FAST] }).post)).toContain("the lowest latency");
  expect(aimInWords(search({}, { constraints: [KEEP] }).post)).toContain("the smallest file");
  expect(aimInWords(search({}, { constraints: [FAST] }).post)).toContain("the best one");
  expect(variedInWords({ min: 1e-5, max: 1e-3, log: true, integer: false })).toBe("0.00001 to 0.001, by ratio");
  expect(variedInWords(["cosine", 1, { a: 1 }])).toBe('cosine, 1, {"a":1}');
  expect(budgetInWords(search({}, { budget: { trials: 8, at_once: 2, device_hours: 0.5 } }).post)).toBe(
    "8 trials, 30 min, 2 at once",
  );
  expect(hoursInWords(2)).toBe("2 device-hours");
});

it("says what was chosen for a trial", () => {
  const size = { image: 0.482, text: 0.5, image_layers: [12], text_layers: 6 };
  const settings = { phase: "size", size, shape: {}, scale: 0.48, from: 3, "optimizer.lr": 3e-4 };
  expect(settingsInWords(settings)).toBe("image 48 %, 12 blocks; text 50 %, 6 blocks; optimizer.lr 0.0003");
  expect(settingsInWords({ seed: 1, phase: "x" })).toBe("seed 1; phase x");
  expect(originInWords(settings)).toBe("cut out of trial 3");
  expect(originInWords({ ...settings, continues: 3 })).toBe("trains the student of trial 3 further");
  expect(originInWords({ phase: "size", from: null })).toBe("cut out of the teacher");
  expect(originInWords({ "optimizer.lr": 1 })).toBe("");
});

it("finds the qualities that count, as the engine does", () => {
  expect(goalsOf(search().post).map(({ task, metric }) => [task, metric])).toEqual([
    ["pets", "top1"],
    ["pairs", "text_to_image_r10"],
  ]);
  expect(qualityOf({ "tags.en": { top1: 0.4 }, "tags.de": { top1: 0.6 } }, "tags", "top1")).toBe(0.5);
  expect(qualityOf({}, "tags", "top1")).toBeNull();
  expect(neededFor(goalsOf(search({}, { constraints: [KEEP] }).post)[0]!, { pets: { top1: 0.8 } })).toBeCloseTo(0.76);
});

it("plots trials against what they cost, and the limits", () => {
  const measurements = [{ engine: "openvino", latency_ms: { "image:8:2": 3 }, bytes: 1e6, quality: { pets: { top1: 0.49 } } }];
  const one = search(
    {
      trials: [trial(0), trial(1, { measurements }), trial(2, { quality: {} }), trial(3)],
      front: [{ trial: 1 }, { trial: 3 }] as Search["front"],
      recommended: { trial: 1 } as Search["recommended"],
    },
    { constraints: [FAST, KEEP] },
  );
  const costs = costsOf(one.trials);
  expect(costs.map(({ key }) => key)).toEqual(["openvino image:8:2", "bytes", "params", "macs"]);
  expect(shownGoals(one).map(({ task, metric }) => [task, metric])).toEqual([["pets", "top1"]]);
  const [goal, latency] = [shownGoals(one)[0]!, usualCost(costs, one)!];
  expect(pointsOf(one, goal, latency).map(({ x, y, group }) => [x, y, group])).toEqual([[3, 0.49, "Recommended"]]);
  expect(limitsOf(one, goal, latency).map(({ axis, label }) => [axis, label])).toEqual([
    ["x", "at most 4 ms"],
    ["y", "at least 76.0 %"],
  ]);
  expect(pointsOf(one, goal, costs[1]!).map(({ y, group }) => [y, group])).toEqual([
    [0.5, "Trials"],
    [0.5, "Recommended"],
    [0.5, "On the front"],
  ]);
  expect(usualCost(costs, search())?.key).toBe("bytes");
});

it("starts a request with a spec and its comments", () => {
  const text = withSpec(TEMPLATES[0]!, "# mine\nname: a\n\nevaluation:\n  tasks:\n    - name: style\n");
  expect(text).toContain("- {task: style, keep: 0.95}");
  expect(text).toContain("\nspec:\n  # mine\n  name: a\n\n  evaluation:\n");
});

it("writes a request again without what has no value", () => {
  const written = requestOf(search({}, { constraints: [KEEP, FAST] }).post);
  expect(written.constraints).toEqual([{ task: "pets", keep: 0.95 }, FAST]);
  expect("minimize" in written).toBe(false);
});
