import { expect, it } from "vitest";
import type { ListedJob } from "./mergeJobs";
import { advance, type Head } from "./trail";

const head = (at: number, ...created: number[]): Head => ({
  at,
  jobs: created.map((each) => ({ id: String(each), created: each }) as ListedJob),
  isWhole: false,
  next: `after-${created.at(-1)}`,
});

it("keeps what new jobs push out of the first page", () => {
  const first = advance(null, head(1, 3, 2, 1));
  const second = advance(first, head(2, 5, 4, 3));
  expect(second.next).toBe("after-1");
  expect(second.reads.map((read) => read.jobs.map((job) => job.created))).toEqual([
    [3, 2, 1],
    [2, 1],
  ]);
});

it("begins again if there may be jobs between two readings", () => {
  expect(advance(advance(null, head(1, 3, 2, 1)), head(2, 9, 8, 7)).next).toBe("after-7");
});
