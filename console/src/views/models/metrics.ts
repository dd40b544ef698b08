/** The numbers of an evaluation: which there are, and how they are called. */
import { integer, milliseconds, percent, significant } from "../../app/format";

/** Metrics of one task, as the API gives them. */
export type Metrics = Record<string, unknown>;

/** Shares of 1, of which more is better; the first of a task's is what it is compared by. */
const SHARES: Record<string, string> = {
  top1: "top-1",
  text_to_image_r10: "text to image R@10",
  top5: "top-5",
  mean_per_class: "mean per class",
  text_to_image_r1: "text to image R@1",
  text_to_image_r5: "text to image R@5",
  image_to_text_r1: "image to text R@1",
  image_to_text_r5: "image to text R@5",
  image_to_text_r10: "image to text R@10",
};

const OTHERS: Record<string, [string, (value: number) => string]> = {
  samples: ["images", integer],
  texts: ["captions", integer],
  skipped: ["images left out", integer],
  skipped_shards: ["shards left out", integer],
  unknown_tokens: ["unknown tokens", integer],
  ms_per_image: ["time per image", milliseconds],
  probe_c: ["C of the probe", significant],
};

export function isShare(metric: string): boolean {
  return metric in SHARES;
}

export function metricLabel(metric: string): string {
  return SHARES[metric] ?? OTHERS[metric]?.[0] ?? metric;
}

/** Return the metrics that are shares, the most telling first. */
export function sharesOf(scores: Metrics | null | undefined): string[] {
  return Object.keys(SHARES).filter((metric) => typeof scores?.[metric] === "number");
}

const ONLY_IF_ANY = ["skipped", "skipped_shards", "unknown_tokens"];

/** Return all single numbers: shares first, then what else is known of the task; the time is a fact of the model. */
export function numbersOf(scores: Metrics | null | undefined): string[] {
  const numbers = Object.keys(scores ?? {}).filter(
    (metric) => typeof scores?.[metric] === "number" && !isShare(metric) && metric !== "ms_per_image",
  );
  return [...sharesOf(scores), ...numbers.filter((metric) => !ONLY_IF_ANY.includes(metric) || scores?.[metric] !== 0)];
}

export function valueOf(scores: Metrics | null | undefined, metric: string): number | null {
  const value = scores?.[metric];
  return typeof value === "number" ? value : null;
}

export function formatMetric(metric: string, value: number | null): string {
  if (isShare(metric)) return percent(value);
  return value === null ? percent(null) : (OTHERS[metric]?.[1] ?? significant)(value);
}

/** Return the student's share of its teacher's number; null if one is missing or the teacher has none right. */
export function keptShare(student: number | null, teacher: number | null): number | null {
  return student === null || teacher === null || teacher <= 0 ? null : student / teacher;
}

/** Return `+1.2 points` for the difference of two shares. */
export function points(difference: number | null): string {
  if (difference === null) return "–";
  const rounded = Math.round(difference * 1000) / 10;
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : "±"}${Math.abs(rounded).toFixed(1)}`;
}
