import { expect, it } from "vitest";
import { queryRate, ratedCounts, withAnswer, type Traffic } from "./rates";

function answer(second: number, queries: number, counts: [string, number, number][] = []): Traffic {
  const measured_at = new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();
  return {
    deployment: "emoji",
    measured_at,
    queries,
    latency: { count: queries },
    counts: counts.map(([route, status, requests]) => ({ route, status, model: "emoji@1", requests })),
  } as Traffic;
}

it("is the difference of the counters by the time between the answers", () => {
  const answers = [
    answer(0, 100, [
      ["/zero-shot", 200, 90],
      ["/zero-shot", 400, 10],
    ]),
    answer(10, 150, [
      ["/zero-shot", 200, 140],
      ["/zero-shot", 400, 10],
      ["/search", 200, 5],
    ]),
  ];
  expect(queryRate(answers)).toBe(5);
  expect(ratedCounts(answers).map(({ route, status, rate }) => [route, status, rate])).toEqual([
    ["/zero-shot", 200, 5],
    ["/zero-shot", 400, 0],
    ["/search", 200, 0.5],
  ]);
});

it("is not known from one answer", () => {
  expect(queryRate([])).toBeNull();
  expect(queryRate([answer(0, 5)])).toBeNull();
  expect(ratedCounts([answer(0, 5, [["/search", 200, 5]])])[0]!.rate).toBeNull();
});

it("counts from 0 after replicas have started again", () => {
  expect(queryRate([answer(0, 1000), answer(10, 20)])).toBe(2);
});

it("keeps the answers of the last ten seconds, and one before", () => {
  const times = (answers: Traffic[]) => answers.map(({ measured_at }) => new Date(measured_at).getUTCSeconds());
  const answers = [0, 4, 8, 12, 16, 20].reduce<Traffic[]>((before, second) => withAnswer(before, answer(second, second)), []);
  expect(times(answers)).toEqual([8, 12, 16, 20]);
});

it("ignores an answer that was measured already, and one that is older", () => {
  const answers = withAnswer([], answer(2, 1));
  expect(withAnswer(answers, answer(2, 1))).toBe(answers);
  expect(withAnswer([answer(9, 1)], answer(5, 1))).toHaveLength(1);
});
