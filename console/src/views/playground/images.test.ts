import { expect, it } from "vitest";
import { chosen, fileProblem, MOST_BYTES, placeOf } from "./images";

const image = (name: string, size = 10, type = "image/png") => ({ name, size, type });

it("names the file that cannot be used, and its size", () => {
  expect(fileProblem(image("a.png"))).toBeNull();
  expect(fileProblem(image("notes.txt", 5, "text/plain"))).toBe("notes.txt is not an image (text/plain).");
  expect(fileProblem(image("large.png", MOST_BYTES * 2))).toBe("large.png has 40 MiB; an image may have 20 MiB at most.");
  expect(fileProblem(image("empty.png", 0))).toBe("empty.png is empty.");
});

it("takes as many as the API allows", () => {
  const { accepted, problems } = chosen([{ content: { size: 10 } }], [image("a"), image("b"), image("c", 5, "text/html")], 2);
  expect(accepted.map((file) => file.name)).toEqual(["a"]);
  expect(problems).toEqual(["b is one too many; 2 images at most.", "c is not an image (text/html)."]);
  const large = Array.from({ length: 4 }, (_, place) => image(`${place}`, MOST_BYTES));
  expect(chosen([], large, 16).accepted).toHaveLength(3);
});

it("finds the image of an error", () => {
  expect([placeOf("/image"), placeOf("/image/3"), placeOf("/images/12")]).toEqual([0, 3, 12]);
});
