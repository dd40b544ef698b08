/** Rates between two answers about the traffic of a deployment. */
import type { Schemas } from "../../../api/client";

export type Traffic = Schemas["Traffic"];
type Count = Traffic["counts"] extends (infer T)[] | undefined ? T : never;

/** Answers that are kept: a rate is that of the last ten seconds. */
export const WINDOW_MS = 10_000;

export interface RatedCount {
  route: string;
  status: number;
  model: string;
  requests: number;
  /** Requests per second; null: not known yet. */
  rate: number | null;
}

/** Return the answers with a new one, without those that are older than needed. The same answer again changes nothing. */
export function withAnswer(answers: Traffic[], next: Traffic): Traffic[] {
  if (answers.at(-1)?.measured_at === next.measured_at) return answers;
  const since = time(next) - WINDOW_MS;
  const older = answers.filter((answer) => time(answer) < time(next));
  const firstNeeded = older.findLastIndex((answer) => time(answer) <= since);
  return [...older.slice(Math.max(0, firstNeeded)), next];
}

/** Return all counts of the newest answer, each with its rate since the oldest one. */
export function ratedCounts(answers: Traffic[]): RatedCount[] {
  const newest = answers.at(-1);
  const seconds = secondsOf(answers);
  const before = new Map((answers[0]?.counts ?? []).map((count) => [keyOf(count), count.requests]));
  return (newest?.counts ?? [])
    .map((count) => ({ ...count, rate: seconds === null ? null : rate(before.get(keyOf(count)) ?? 0, count.requests, seconds) }))
    .sort((a, b) => b.requests - a.requests);
}

/** Queries per second of the whole deployment; null: not known yet. */
export function queryRate(answers: Traffic[]): number | null {
  const seconds = secondsOf(answers);
  const [first, last] = [answers[0], answers.at(-1)];
  return seconds === null || first === undefined || last === undefined ? null : rate(first.queries, last.queries, seconds);
}

/** A counter that is smaller than before began again at 0, as the replicas started again. */
function rate(before: number, now: number, seconds: number): number {
  return (now >= before ? now - before : now) / seconds;
}

function secondsOf(answers: Traffic[]): number | null {
  const [first, last] = [answers[0], answers.at(-1)];
  const seconds = first === undefined || last === undefined ? 0 : (time(last) - time(first)) / 1000;
  return seconds > 0 ? seconds : null;
}

function keyOf({ route, status, model }: Count): string {
  return JSON.stringify([route, status, model]);
}

function time({ measured_at }: Traffic): number {
  return new Date(measured_at).getTime();
}
