import { expect, it } from "vitest";
import { highlight } from "./highlight";

it("finds every occurrence in any case", () => {
  expect(highlight("Loss is a loss", "loss")).toEqual(["", "Loss", " is a ", "loss", ""]);
  expect(highlight("none", "loss")).toEqual(["none"]);
  expect(highlight("text", "")).toEqual(["text"]);
});

it("leaves texts alone whose lower case has another length", () => {
  expect(highlight("İİ loss", "loss")).toEqual(["İİ loss"]);
});
