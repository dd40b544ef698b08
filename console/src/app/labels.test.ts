import { expect, it } from "vitest";
import { visible } from "./labels";

it("shows direction marks and control characters by their code point", () => {
  expect(visible("exe\u202Egnp.\u0007")).toBe("exe⟨U+202E⟩gnp.⟨U+0007⟩");
});

it("keeps line breaks, tabs, emoji and other scripts", () => {
  expect(visible("a\tb\nحصان 🐎 馬")).toBe("a\tb\nحصان 🐎 馬");
});

it("cuts long texts", () => {
  expect(visible("x".repeat(10_000), 20)).toBe(`${"x".repeat(20)}…`);
});
