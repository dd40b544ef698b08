import { expect, it } from "vitest";
import { axisEnd, overStages, stageMarks, stageOffsets } from "./axis";
import { curvesOf, teacherScores } from "./curvesOf";
import { groupSeries, isScore, shortName, usualGroups } from "./groups";
import { fromSnapshot, merge, withLater, type NamedPoint } from "./series";

const point = (name: string, stage: number, step: number, value: number): NamedPoint => ({ name, stage, step, value });
const loss = (...steps: number[]) => ({ loss: steps.map((step) => ({ stage: 0, step, value: step / 10 })) });

it("appends points of the stream to a snapshot", () => {
  const merged = merge(fromSnapshot(loss(1, 2)), [point("loss", 0, 3, 9), point("loss", 1, 1, 7), point("lr", 0, 1, 5)]);
  expect(merged.get("loss")).toEqual([
    { steps: [1, 2, 3], values: [0.1, 0.2, 9] },
    { steps: [1], values: [7] },
  ]);
  expect(merged.get("lr")).toEqual([{ steps: [1], values: [5] }]);
});

it("replaces the point of a repeated step, and puts others between", () => {
  const merged = merge(fromSnapshot(loss(10, 20, 30)), [point("loss", 0, 20, 5), point("loss", 0, 15, 6)]);
  expect(merged.get("loss")).toEqual([{ steps: [10, 15, 20, 30], values: [1, 6, 5, 3] }]);
});

it("changes neither the series before nor those without new points", () => {
  const before = fromSnapshot({ ...loss(1), lr: [{ stage: 0, step: 1, value: 1 }] });
  const after = merge(before, [point("loss", 0, 2, 1)]);
  expect(before.get("loss")).toEqual([{ steps: [1], values: [0.1] }]);
  expect(after.get("lr")).toBe(before.get("lr"));
  expect(merge(before, [])).toBe(before);
});

it("keeps what arrived while a new snapshot was taken, and only that", () => {
  const batches = [
    { last: 4, points: [point("loss", 0, 2, 99)] },
    { last: 6, points: [point("loss", 0, 3, 3)] },
  ];
  const merged = withLater({ series: loss(1, 2), last: 4 }, batches);
  expect(merged.get("loss")).toEqual([{ steps: [1, 2, 3], values: [0.1, 0.2, 3] }]);
});

it("lets each stage begin where the one before ends", () => {
  const series = merge(new Map(), [point("loss", 0, 80, 1), point("loss", 1, 250, 1), point("loss", 2, 5, 1)]);
  expect(stageOffsets([100, 200, null], series)).toEqual([0, 100, 350]);
  expect(stageOffsets([], series)).toEqual([0, 80, 330]);
  expect([axisEnd(series, [0, 80, 330]), axisEnd(new Map(), [])]).toEqual([335, 0]);
});

it("draws stages on one axis with a gap between them", () => {
  const stages = [{ steps: [50, 100], values: [2, 1] }, undefined, { steps: [50], values: [3] }];
  const { x, y } = overStages(stages, [0, 100, 200]);
  expect([Array.from(x), Array.from(y)]).toEqual([
    [50, 100, 175, 250],
    [2, 1, NaN, 3],
  ]);
  expect(overStages([], []).x).toHaveLength(0);
  expect(stageMarks(["a", "b"], [0, 100])).toEqual([{ x: 100, label: "b" }]);
});

it("groups series of one meaning", () => {
  const groups = groupSeries([
    "lr",
    "affinity",
    "colours/top1",
    "colours/samples",
    "colours/top5",
    "loss",
    "sparsity",
    "target_sparsity",
    "image_mlp_kept",
  ]);
  expect(groups.map((group) => [group.key, group.names])).toEqual([
    ["loss", ["loss"]],
    ["lr", ["lr"]],
    ["sparsity", ["sparsity", "target_sparsity"]],
    ["kept", ["image_mlp_kept"]],
    ["evaluation/colours", ["colours/top1", "colours/top5"]],
    ["terms", ["affinity"]],
    ["counts", ["colours/samples"]],
  ]);
  expect(usualGroups(["loss", "affinity", "colours/texts"]).map((group) => group.key)).toEqual(["loss"]);
  expect(groups[4]!.format(0.5)).toBe("50 %");
  expect(shortName("a/b/text_to_image_r1")).toBe("text to image r1");
  expect([isScore("samples"), isScore("top1")]).toEqual([false, true]);
});

it("draws the teacher's scores over the whole axis, in the colour of the student's", () => {
  const stages = [
    { evaluation: { colours: { teacher: { top1: 0.8, per_class: [1] } } } },
    { evaluation: { colours: { teacher: null } } },
  ];
  const [group] = groupSeries(["colours/top1", "colours/top5"]);
  const points = [[{ steps: [100], values: [0.5] }], [{ steps: [100], values: [0.9] }]];
  const curves = curvesOf({ group: group!, points, offsets: [0], end: 120, keep: 0.9, teacher: teacherScores(stages) });
  expect(curves.map((curve) => curve.label)).toEqual(["top1", "top5", "top1, teacher"]);
  expect(curves[2]).toMatchObject({ x: [0, 120], y: [0.8, 0.8], color: curves[0]!.color });
  expect(Array.from(curves[0]!.y)).toEqual([0.5]);
});
