/** What the trade-off plot shows: versions, their teachers and published models, for one metric against one cost. */
import type { Schemas } from "../../api/client";
import { compact, milliseconds, percent } from "../../app/format";
import type { Point } from "../../ui/scatter/types";
import { metricLabel, sharesOf, valueOf, type Metrics } from "./metrics";
import published from "./published.json";
import { referenceOf, registeredTeacher, type Reference } from "./references";

export type Compared = Schemas["ComparedModel"];
export type Cost = "latency" | "params" | "macs";

export const VERSIONS = "Versions";
export const TEACHERS = "Teachers";
export const PUBLISHED = "Published models";
export const PUBLISHED_SOURCE = published.source;

export const COSTS: Record<Cost, { label: string; format: (value: number | null) => string }> = {
  latency: { label: "Time per image, image tower", format: milliseconds },
  params: { label: "Parameters without token embedding", format: (value) => compact(value) },
  macs: { label: "MACs of an image and a text", format: (value) => compact(value) },
};

/** A point of the plot, and the version of the registry that it stands for. */
export interface Plotted extends Point {
  version: Reference | null;
}

/** Return the tasks, those that most versions were evaluated on first. */
export function tasksOf(models: readonly Compared[]): string[] {
  const counts = new Map<string, number>();
  for (const model of models) {
    for (const [task, scores] of Object.entries(model.evaluation)) {
      if (sharesOf(scores).length > 0) counts.set(task, (counts.get(task) ?? 0) + 1);
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([task]) => task);
}

/** Return the metrics that some version has for a task. */
export function metricsOf(models: readonly Compared[], task: string): string[] {
  const all: Metrics = Object.fromEntries(models.flatMap((model) => Object.entries(model.evaluation[task] ?? {})));
  return sharesOf(all);
}

/** Return the cost that most versions have: their latency where it was measured. */
export function usualCost(models: readonly Compared[]): Cost {
  const timed = models.filter((model) => model.latency_ms != null).length;
  return timed * 2 > models.length ? "latency" : "params";
}

export function plotted(models: readonly Compared[], task: string, metric: string, cost: Cost): Plotted[] {
  const teachers = new Map<string, { point: Plotted; students: string[] }>();
  const versions: Plotted[] = [];
  for (const model of models) {
    const [x, y] = [costOf(model, cost), valueOf(model.evaluation[task], metric)];
    if (x !== null && y !== null) versions.push(versionPoint(model, x, y, metric, cost));
    const teacher = teacherPoint(model, task, metric, cost);
    if (teacher === null) continue;
    const known = teachers.get(teacher.key)?.students ?? [];
    // Each evaluation measures the time again: the first one, of the newest version, is shown.
    teachers.set(teacher.key, { point: teachers.get(teacher.key)?.point ?? teacher, students: [...known, referenceOf(model)] });
  }
  return [
    ...versions,
    ...[...teachers.values()].map(({ point, students }) => ({ ...point, details: [...point.details, studentsOf(students)] })),
    ...publishedPoints(task, metric, cost),
  ];
}

function versionPoint(model: Compared, x: number, y: number, metric: string, cost: Cost): Plotted {
  const label = referenceOf(model);
  const details: [string, string][] = [...place(x, y, metric, cost), ...sizes(model.params, cost)];
  if (model.teacher !== null) details.push(["teacher", model.teacher]);
  return { key: label, group: VERSIONS, x, y, label, details, version: { name: model.name, version: String(model.version) } };
}

function teacherPoint(model: Compared, task: string, metric: string, cost: Cost): Plotted | null {
  const y = valueOf(model.teacher_evaluation[task], metric);
  const x = { latency: model.teacher_latency_ms, macs: model.teacher_macs, params: withoutEmbedding(model.teacher_params) }[cost];
  if (model.teacher === null || y === null || x == null || x <= 0) return null;
  const details = [...place(x, y, metric, cost), ...sizes(model.teacher_params, cost)];
  return {
    key: `teacher ${model.teacher} ${y.toFixed(4)}`,
    group: TEACHERS,
    x,
    y,
    label: model.teacher,
    details,
    version: registeredTeacher(model.teacher),
  };
}

function studentsOf(students: string[]): [string, string] {
  return ["teacher of", students.length > 1 ? `${students[0]} and ${students.length - 1} more` : students[0]!];
}

function publishedPoints(task: string, metric: string, cost: Cost): Plotted[] {
  if (!isImageNet(task) || metric !== "top1" || cost !== "params") return [];
  return published.models.map(({ name, image, text, top1, inherit, data }) => ({
    key: `published ${name} ${data}`,
    group: PUBLISHED,
    x: image + text,
    y: top1,
    label: name,
    details: [...place(image + text, top1, metric, cost), ["inheritance", inherit], ["data", data]],
    version: null,
  }));
}

/** True for ImageNet itself, not for its variants (ImageNet-V2, -A, …), of which nothing is published. */
export function isImageNet(task: string): boolean {
  return /^imagenet([-_ ]?1k)?([-_.](val|en|zero[-_]?shot))*$/i.test(task);
}

function costOf(model: Compared, cost: Cost): number | null {
  const value = { latency: model.latency_ms, macs: model.macs, params: withoutEmbedding(model.params) }[cost];
  return value == null || value <= 0 ? null : value;
}

function withoutEmbedding(params: Schemas["Params"] | null | undefined): number | null {
  return params == null ? null : params.image + params.text_without_embedding;
}

function place(x: number, y: number, metric: string, cost: Cost): [string, string][] {
  return [
    [metricLabel(metric), percent(y)],
    [{ latency: "time per image", macs: "MACs", params: "parameters" }[cost], COSTS[cost].format(x)],
  ];
}

function sizes(params: Schemas["Params"] | null | undefined, cost: Cost): [string, string][] {
  if (params == null) return [];
  const towers: [string, string] = [
    "image and text",
    `${compact(params.image)} and ${compact(params.text_without_embedding)} parameters`,
  ];
  return cost === "params"
    ? [["image and text", `${compact(params.image)} and ${compact(params.text_without_embedding)}`]]
    : [towers];
}
