import { expect, it } from "vitest";
import type { Finding } from "../queries";
import { bySeverity, countsOf, examplesOf, titleOf } from "./findings";

const finding = (severity: Finding["severity"], share: number, examples: Finding["examples"] = []): Finding => ({
  code: "blank_images",
  severity,
  share,
  count: 1,
  estimated: false,
  message: "",
  remedy: "",
  examples,
});

it("orders by severity, then by share", () => {
  const ordered = bySeverity([finding("info", 0.9), finding("warning", 0.1), finding("error", 0), finding("warning", 0.4)]);
  expect(ordered.map(({ severity, share }) => `${severity} ${share}`)).toEqual([
    "error 0",
    "warning 0.4",
    "warning 0.1",
    "info 0.9",
  ]);
});

it("counts and names", () => {
  expect(countsOf([finding("error", 0), finding("info", 0), finding("info", 0)])).toBe("1 error, 2 notes");
  expect(countsOf([])).toBe("none");
  expect(titleOf("near_duplicate_images")).toBe("Near duplicate images");
  expect(titleOf("url_captions")).toBe("URL captions");
});

it("reads examples that lack fields", () => {
  expect(examplesOf(finding("info", 0, [{ key: "a" }, { shard: null, detail: 3 }]))).toEqual([
    { key: "a", shard: "", detail: "" },
    { key: "", shard: "", detail: "3" },
  ]);
});
