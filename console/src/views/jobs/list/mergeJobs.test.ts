import { expect, it } from "vitest";
import { atMost } from "../atMost";
import { mergeJobs, outOfDate, type Answers, type ListedJob, type Read } from "./mergeJobs";

const job = (created: number, state: ListedJob["state"] = "succeeded") => ({ id: `job-${created}`, created, state }) as ListedJob;
const read = (at: number, jobs: ListedJob[], isWhole = false): Read => ({ at, jobs, isWhole });
const answers = (given: Partial<Answers>): Answers => ({
  pages: [],
  head: undefined,
  active: undefined,
  single: new Map(),
  ...given,
});
const ids = (jobs: ListedJob[]) => jobs.map((each) => each.created);

it("shows each job as of the newest answer, newest first", () => {
  const given = answers({
    pages: [read(1, [job(9, "queued"), job(8, "running")]), read(2, [job(3, "running")])],
    head: read(5, [job(10), job(9, "running"), job(8)]),
  });
  expect(mergeJobs(given).map((each) => [each.created, each.state])).toEqual([
    [10, "succeeded"],
    [9, "running"],
    [8, "succeeded"],
    [3, "running"],
  ]);
});

it("drops what has left the first page, but keeps what is older", () => {
  expect(
    ids(mergeJobs(answers({ pages: [read(1, [job(9), job(8), job(7), job(1)])], head: read(2, [job(9), job(7)]) }))),
  ).toEqual([9, 7, 1]);
  expect(ids(mergeJobs(answers({ pages: [read(1, [job(9), job(1)])], head: read(2, [job(9)], true) })))).toEqual([9]);
  expect(ids(mergeJobs(answers({ pages: [read(1, [job(9)])], head: read(2, [], true) })))).toEqual([]);
});

it("asks for jobs that are active no longer, and shows what it learns", () => {
  const given = answers({
    pages: [read(1, [job(9), job(3, "running"), job(2, "queued")])],
    head: read(5, [job(9)]),
    active: read(5, [job(2, "running")], true),
  });
  expect(outOfDate(mergeJobs(given), given)).toEqual(["job-3"]);
  const learned = {
    ...given,
    single: new Map([
      ["job-3", { at: 6, job: job(3, "failed") }],
      ["job-2", { at: 6, job: null }],
    ]),
  };
  expect(mergeJobs(learned).map((each) => each.state)).toEqual(["succeeded", "failed"]);
  expect(outOfDate(mergeJobs(learned), learned)).toEqual([]);
});

it("shows active jobs only as far as the list has been read", () => {
  const given = answers({
    pages: [read(1, [job(9), job(8)])],
    head: read(2, [job(9), job(8)]),
    active: read(2, [job(4, "running")], true),
  });
  expect(ids(mergeJobs(given))).toEqual([9, 8]);
  expect(ids(mergeJobs({ ...given, pages: [...given.pages, { ...read(3, [job(2)]), isLast: true }] }))).toEqual([9, 8, 4, 2]);
});

it("filters by state", () => {
  expect(ids(mergeJobs(answers({ pages: [read(1, [job(2, "running"), job(1)])] }), ["running"]))).toEqual([2]);
});

it("does at most so many at once, and collects failures", async () => {
  let running = 0;
  let most = 0;
  const outcomes = await atMost(
    4,
    Array.from({ length: 20 }, (_, index) => index),
    async (index) => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 1));
      running--;
      if (index === 7) throw new Error("no");
      return index;
    },
  );
  expect(most).toBe(4);
  expect(outcomes.filter((each) => each.error !== undefined).map((each) => each.item)).toEqual([7]);
  expect(outcomes[19]).toEqual({ item: 19, result: 19 });
});
