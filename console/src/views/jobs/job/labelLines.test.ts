import { expect, it } from "vitest";
import { readLabels, writeLabels } from "./labelLines";

it("reads what it writes", () => {
  const labels = { team: "vision", link: "https://a.example/b" };
  expect(readLabels(writeLabels(labels))).toEqual({ labels, mistake: null });
  expect(readLabels("  \n team :vision\n")).toEqual({ labels: { team: "vision" }, mistake: null });
});

it("names the line that is none", () => {
  expect(readLabels("a: b\nnothing").mistake).toContain("nothing");
  expect(readLabels(": b").mistake).not.toBeNull();
  expect(readLabels("a: b\na: c").mistake).toContain("twice");
});
