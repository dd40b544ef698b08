import { expect, it } from "vitest";
import type { Schemas } from "../../../api/client";
import { bodyOf, filled, formOf, problemOf, withModel } from "./form";

const EMOJI = {
  name: "emoji",
  model: "emoji@1",
  models: ["other@2"],
  resident: 2,
  engine: "torch",
  canary: { model: "emoji@2", weight: 0.25 },
  replicas: { min: 1, max: 3, target_requests: 8 },
} as unknown as Schemas["Deployment"];

it("suggests the newest model, and its name", () => {
  const form = filled(formOf(undefined, null), "emoji-half");
  expect([form.name, form.model]).toEqual(["emoji-half", "emoji-half@latest"]);
  expect(problemOf(form)).toBeNull();
  expect(problemOf(filled(formOf(undefined, null), undefined))).toContain("name");
  expect(filled({ ...formOf(undefined, null), name: "mine", model: "a@1" }, "emoji-half")).toMatchObject({
    name: "mine",
    model: "a@1",
  });
});

it("keeps what it does not show", () => {
  expect(bodyOf(filled(formOf(EMOJI, null), undefined), EMOJI)).toEqual({
    model: "emoji@1",
    models: ["other@2"],
    resident: 2,
    engine: "torch",
    canary: { model: "emoji@2", weight: 0.25 },
    replicas: { min: 1, max: 3, target_requests: 8 },
  });
});

it("removes a canary whose name is empty, and needs a version", () => {
  const form = filled({ ...formOf(EMOJI, null), canary: " " }, undefined);
  expect(bodyOf(form, EMOJI).canary).toBeNull();
  expect(problemOf({ ...form, model: "emoji" })).toContain("version");
  expect(problemOf({ ...form, min: 4 })).toContain("replicas");
});

it("changes the model alone", () => {
  expect(withModel(EMOJI, "emoji@3")).toEqual({ ...bodyOf(filled(formOf(EMOJI, null), undefined), EMOJI), model: "emoji@3" });
});

it("ends a canary that becomes the model, or is of another one", () => {
  expect(withModel(EMOJI, "emoji@2")).toMatchObject({ model: "emoji@2", canary: null, resident: 2 });
  expect(withModel(EMOJI, "face@2").canary).toBeNull();
});

it("keeps the share of a canary that is not a whole percent", () => {
  const existing = { ...EMOJI, canary: { model: "emoji@2", weight: 0.125 } };
  expect(bodyOf(filled(formOf(existing, null), undefined), existing).canary?.weight).toBe(0.125);
});
