import { expect, it } from "vitest";
import { endOf } from "./describe";

it("shows a long address by its end", () => {
  expect(endOf("ViT-B-32")).toBe("ViT-B-32");
  expect(endOf("local-dir:/data/very/long/path/teachers/vit")).toBe("…/teachers/vit");
  expect(endOf(`local-dir:/${"x".repeat(50)}`)).toBe(`…${"x".repeat(31)}`);
});
