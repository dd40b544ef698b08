import { expect, it } from "vitest";
import { nameProblem, NEW_FORM, requestOf } from "./request";

it("makes a request of a form, and leaves out what is empty", () => {
  expect(requestOf({ ...NEW_FORM, name: "emoji", shards: " /data/a-*.tar \n\n", captionKey: "json.captions" })).toEqual({
    source: { shards: "/data/a-*.tar", caption_key: "json.captions" },
    holdout: 0.05,
  });
  expect(
    requestOf({
      ...NEW_FORM,
      shards: "a.tar\nb.tar",
      distinctKey: "json.id",
      holdout: 0,
      teacher: "ViT-B-32",
      pretrained: "openai",
    }),
  ).toEqual({
    source: { shards: ["a.tar", "b.tar"], caption_key: "txt", distinct_key: "json.id" },
    holdout: 0,
    teacher: { model: "ViT-B-32", pretrained: "openai" },
  });
});

it("explains names that the API refuses", () => {
  expect(nameProblem("emoji-2.x")).toBeNull();
  expect(nameProblem("Emoji")).toMatch(/lower-case/);
});
