/** What a search is asked for, in words. */
import { bytes, compact, duration, integer, milliseconds, percent, significant } from "../../app/format";
import { metricLabel } from "../models/metrics";
import { goalsOf, neededFor } from "./quality";
import type { Constraint, Search, SearchPost } from "./requests";

type CostName = "latency_ms" | "bytes" | "params" | "macs";

const FORMATS: Record<CostName, (value: number) => string> = {
  latency_ms: milliseconds,
  bytes,
  params: (value) => compact(value),
  macs: (value) => compact(value),
};
const NAMES: Record<CostName, string> = {
  latency_ms: "latency",
  bytes: "file of weights",
  params: "parameters",
  macs: "MACs",
};

/** Return the cost that a constraint limits, and the limit; null for a quality. */
export function limitOf(constraint: Constraint): { name: CostName; max: number } | null {
  for (const name of ["latency_ms", "bytes", "params", "macs"] as const) {
    const limit = constraint[name];
    if (limit != null) return { name, max: limit.max };
  }
  return null;
}

/** As `Latency of the image tower at most 4 ms (openvino, batch 1, 1 thread)`. */
export function constraintInWords(constraint: Constraint, { post, teacher_quality }: Pick<Search, "post" | "teacher_quality">) {
  const limit = limitOf(constraint);
  if (limit !== null) {
    const most = `at most ${FORMATS[limit.name](limit.max)}`;
    if (limit.name !== "latency_ms") return `${capital(NAMES[limit.name])}: ${most}`;
    return `Latency of the ${constraint.tower} tower: ${most} (${hardwareInWords(constraint)})`;
  }
  const goal = goalsOf({ ...post, constraints: [constraint] })[0]!;
  const name = `${capital(metricLabel(goal.metric))} of ${goal.task}`;
  if (goal.keep === null) return `${name}: at least ${percent(goal.min)}`;
  const needed = neededFor(goal, teacher_quality);
  const value = needed === null ? "" : `, which is ${percent(needed)}`;
  return `${name}: at least ${percent(goal.keep, goal.keep * 100 === Math.round(goal.keep * 100) ? 0 : 1)} of the teacher's${value}`;
}

function hardwareInWords({ engine, batch, threads, device }: Constraint): string {
  const where = device === "auto" ? "" : `, ${device === "cpu" ? "CPU" : "GPU"}`;
  return `${engine}, batch ${integer(batch)}, ${plural(threads, "thread")}${where}`;
}

/** Which of the students that meet the constraints is recommended. */
export function aimInWords({ constraints, minimize }: SearchPost): string {
  if (constraints.length === 0) return "The settings with the best quality are recommended.";
  if (!constraints.some(({ task }) => task != null)) return "Of the students within the limits, the best one is recommended.";
  const least = minimize ?? constraints.map(limitOf).find((limit) => limit !== null)?.name ?? "bytes";
  const what = { latency_ms: "the lowest latency", bytes: "the smallest file", params: "the fewest parameters" };
  const named = least === "macs" ? "the fewest MACs" : what[least];
  return `Of the students that meet all, the one with ${named} is recommended.`;
}

/** As `1e-5 to 1e-3, by ratio` for a range, or the values. */
export function variedInWords(values: SearchPost["vary"][string]): string {
  if (Array.isArray(values)) return values.map((value) => valueInWords(value)).join(", ");
  const { min, max, log, integer: isWhole, steps } = values;
  const parts = [log && "by ratio", isWhole && "whole numbers", steps != null && `${steps} values`];
  return [`${valueInWords(min)} to ${valueInWords(max)}`, ...parts.filter((part) => part !== false)].join(", ");
}

export function valueInWords(value: unknown): string {
  return typeof value === "number"
    ? String(Number(value.toPrecision(4)))
    : typeof value === "string"
      ? value
      : JSON.stringify(value);
}

export function budgetInWords({ budget, strategy }: SearchPost): string {
  const { trials, device_hours, at_once } = budget;
  return [
    plural(trials, "trial"),
    device_hours != null && hoursInWords(device_hours),
    at_once > 1 && `${integer(at_once)} at once`,
    strategy !== "auto" && `strategy ${strategy}`,
  ]
    .filter((part) => part !== false)
    .join(", ");
}

/** Device-hours; less than one is a time. */
export function hoursInWords(hours: number | null | undefined): string {
  if (hours == null) return "–";
  return hours < 1 ? duration(hours * 3600) : `${significant(hours)} device-hours`;
}

export const PHASES: Record<Search["phase"], string> = {
  measuring: "measures the speed of layouts",
  trials: "runs trials",
  finalists: "measures the finalists in every engine",
};

export function plural(count: number, noun: string): string {
  return `${integer(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
