/** Models side by side: one column for each version and each different teacher, one row for each fact and metric. */
import type { Schemas } from "../../api/client";
import { compact, integer, milliseconds } from "../../app/format";
import { formatMetric, isShare, metricLabel, numbersOf, points, valueOf, type Metrics } from "./metrics";
import { referenceOf } from "./references";
import type { Compared } from "./tradeoff";

export interface Column {
  key: string;
  label: string;
  isTeacher: boolean;
  params: Schemas["Params"] | null;
  macs: number | null;
  latency: number | null;
  model: Compared | null;
  evaluation: Record<string, Metrics>;
}

export interface Cell {
  value: number | null;
  text: string;
  /** The best of the versions, where one is better than another. */
  isBest: boolean;
  /** The difference from the first version; empty in its own column and where there is nothing to compare. */
  change: string;
}

export interface CompareRow {
  key: string;
  label: string;
  cells: Cell[];
  differs: boolean;
}

export interface CompareGroup {
  title: string;
  rows: CompareRow[];
}

/** Return the versions, and after them their teachers, each once. */
export function columnsOf(models: readonly Compared[]): Column[] {
  const versions = models.map((model): Column => ({
    key: referenceOf(model),
    label: referenceOf(model),
    isTeacher: false,
    params: model.params,
    macs: model.macs,
    latency: model.latency_ms ?? null,
    model,
    evaluation: model.evaluation,
  }));
  const teachers = new Map<string, Column>();
  for (const model of models) {
    if (model.teacher === null || (Object.keys(model.teacher_evaluation).length === 0 && model.teacher_params == null)) continue;
    const key = `teacher ${model.teacher}`;
    const known = teachers.get(key);
    teachers.set(key, {
      key,
      label: model.teacher,
      isTeacher: true,
      params: model.teacher_params ?? known?.params ?? null,
      macs: model.teacher_macs ?? known?.macs ?? null,
      latency: known?.latency ?? model.teacher_latency_ms ?? null,
      model: null,
      // The numbers that the first version with a task was compared with.
      evaluation: { ...model.teacher_evaluation, ...known?.evaluation },
    });
  }
  return [...versions, ...teachers.values()];
}

export function compareGroups(columns: readonly Column[]): CompareGroup[] {
  const tasks = [...new Set(columns.flatMap(({ evaluation }) => Object.keys(evaluation)))];
  return [
    { title: "Size and time", rows: factRows(columns) },
    ...tasks.map((task) => ({ title: task, rows: taskRows(columns, task) })).filter(({ rows }) => rows.length > 0),
  ];
}

type Wish = "more" | "less" | "none";

function factRows(columns: readonly Column[]): CompareRow[] {
  const facts: [string, Wish, (value: number | null) => string, (column: Column) => number | null][] = [
    ["Image params", "less", (value) => compact(value), ({ params }) => params?.image ?? null],
    ["Text params without embedding", "less", (value) => compact(value), ({ params }) => params?.text_without_embedding ?? null],
    [
      "Token embedding params",
      "less",
      (value) => compact(value),
      ({ params }) => (params === null ? null : params.text - params.text_without_embedding),
    ],
    ["MACs", "less", (value) => compact(value), ({ macs }) => macs],
    ["Time per image", "less", milliseconds, ({ latency }) => latency],
    ["Embedding, numbers", "none", integer, ({ model }) => model?.embed_dim ?? null],
    ["Image size, px", "none", integer, ({ model }) => model?.image_size ?? null],
    ["Text length, tokens", "none", integer, ({ model }) => model?.context_length ?? null],
    [
      "Searches across with the teacher",
      "more",
      (value) => formatMetric("top1", value),
      ({ model }) => model?.compatible_share ?? null,
    ],
  ];
  return facts.map(([label, wish, format, read]) => row(label, columns, wish, format, read, relative)).filter(hasValue);
}

function taskRows(columns: readonly Column[], task: string): CompareRow[] {
  const all: Metrics = Object.fromEntries(columns.flatMap(({ evaluation }) => Object.entries(evaluation[task] ?? {})));
  return numbersOf(all).map((metric) => {
    const read = ({ evaluation }: Column) => valueOf(evaluation[task], metric);
    const format = (value: number | null) => formatMetric(metric, value);
    return row(
      metricLabel(metric),
      columns,
      isShare(metric) ? "more" : "none",
      format,
      read,
      isShare(metric) ? inPoints : () => "",
    );
  });
}

function row(
  label: string,
  columns: readonly Column[],
  wish: Wish,
  format: (value: number | null) => string,
  read: (column: Column) => number | null,
  change: (value: number, first: number) => string,
): CompareRow {
  const values = columns.map(read);
  const ofVersions = values.filter((value, place) => value !== null && !columns[place]!.isTeacher) as number[];
  const differs = new Set(ofVersions).size > 1;
  const best = wish === "more" ? Math.max(...ofVersions) : wish === "less" ? Math.min(...ofVersions) : NaN;
  const first = columns[0]?.isTeacher === false ? values[0] : null;
  const cells = values.map((value, place): Cell => ({
    value,
    text: format(value),
    isBest: differs && !columns[place]!.isTeacher && value === best,
    change: place === 0 || value === null || first == null || value === first ? "" : change(value, first),
  }));
  return { key: label, label, cells, differs: new Set(values.filter((value) => value !== null)).size > 1 };
}

function hasValue({ cells }: CompareRow): boolean {
  return cells.some(({ value }) => value !== null);
}

/** `× 0.52` of the first. */
function relative(value: number, first: number): string {
  return first === 0 ? "" : `× ${(value / first).toPrecision(3)}`;
}

function inPoints(value: number, first: number): string {
  return `${points(value - first)} points`;
}
