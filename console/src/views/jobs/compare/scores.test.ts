import { expect, it } from "vitest";
import { best, scoreRows } from "./scores";

it("has the scores of the last stage of each job", () => {
  const stage = (top1: number) => ({ evaluation: { colours: { student: { top1, samples: 9, per_class: [1] } } } });
  expect(scoreRows([{ stages: [stage(0.1), stage(0.2)] }, { stages: [] }, { stages: [stage(0.3)] }])).toEqual([
    { task: "colours", score: "top1", values: [0.2, undefined, 0.3] },
  ]);
});

it("names the best of several", () => {
  expect([best([0.1, undefined, 0.3]), best([0.1, undefined]), best([0.2, 0.2])]).toEqual([0.3, undefined, undefined]);
});
