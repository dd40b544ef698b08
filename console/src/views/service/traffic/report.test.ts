import { expect, it } from "vitest";
import { readReport } from "./report";

it("reads the report of a replica", () => {
  const report = readReport({
    engine: "openvino",
    engine_report: {
      engine: "openvino",
      asked: "auto",
      reason: "the fastest",
      device: "cpu",
      threads: 2,
      batch: 8,
      trials: [{ engine: "torch", images_per_second: 80.5, cosine: 1, refused: "" }],
    },
    canary: { model: "emoji@2", error: "no such file" },
  });
  expect(report).toMatchObject({ engine: "openvino", asked: "auto", threads: 2, canaryError: "no such file", minCosine: null });
  expect(report.trials).toEqual([{ engine: "torch", imagesPerSecond: 80.5, cosine: 1, refused: "" }]);
});

it("reads a report without any of it", () => {
  expect(readReport({ engine: "torch", canary: null })).toMatchObject({
    engine: "torch",
    reason: "",
    trials: [],
    canaryError: "",
  });
});
