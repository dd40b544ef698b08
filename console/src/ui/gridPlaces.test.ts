import { expect, it } from "vitest";
import { columnsOf, moved } from "./gridPlaces";

it("fits tiles beside each other, at least one", () => {
  expect(columnsOf(0, 128, 12)).toBe(1);
  expect(columnsOf(900, 128, 12)).toBe(5);
});

it("moves by keys and stays within the grid", () => {
  expect(moved("ArrowDown", 1, 10, 4)).toBe(5);
  expect(moved("ArrowDown", 7, 10, 4)).toBeNull();
  expect(moved("ArrowUp", 2, 10, 4)).toBeNull();
  expect(moved("ArrowLeft", 0, 10, 4)).toBeNull();
  expect(moved("End", 0, 10, 4)).toBe(9);
  expect(moved("Home", 9, 10, 4)).toBe(0);
  expect(moved("a", 0, 10, 4)).toBeNull();
});
