import { expect, it } from "vitest";
import { partsOf } from "./readiness";

it("has the state of each dependency, and those that are new", () => {
  const parts = partsOf({ status: "degraded", parts: { database: "ok", ray: "cannot be reached", planner: "ok" }, reasons: "" });
  expect(parts.map(({ name, state }) => [name, state])).toEqual([
    ["database", "ok"],
    ["artifacts", null],
    ["ray", "cannot be reached"],
    ["scheduler", null],
    ["planner", "ok"],
  ]);
});

it("reads the reasons of a server that is not ready", () => {
  const parts = partsOf({
    status: "not ready",
    parts: {},
    reasons: "not ready: database cannot be reached; ray did not answer within 5 s",
  });
  expect(parts.map(({ state }) => state)).toEqual(["cannot be reached", null, "did not answer within 5 s", null]);
});
