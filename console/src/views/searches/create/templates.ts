/** Requests to start from: constraints or varied settings, above a spec with its comments. */
import { parse } from "../../newjob/document/parse";

export interface SearchTemplate {
  name: string;
  label: string;
  description: string;
  /** What is above the spec; `TASK` is the first task of the spec. */
  head: string;
}

export const TEMPLATES: SearchTemplate[] = [
  {
    name: "smallest",
    label: "Smallest student",
    description: "The smallest student that keeps the quality within a latency.",
    head: `# The smallest student that meets the constraints. Sizes of the spec's students are the search's to choose.
constraints:
  - {task: TASK, keep: 0.95}         # a share of the teacher's value; or min, a value
  - latency_ms: {max: 4}             # of one call of a tower; also bytes, params or macs
    engine: torch                    # as the student will serve: engine, batch, tower, threads, device
budget: {trials: 12, at_once: 1}     # and device_hours
`,
  },
  {
    name: "limits",
    label: "Best within limits",
    description: "The best student whose weights are not larger than a limit.",
    head: `# The best student within the limits. Sizes of the spec's students are the search's to choose.
constraints:
  - bytes: {max: 10.0e6}             # of the file of the weights; also latency_ms, params or macs
budget: {trials: 8, at_once: 1}      # and device_hours
`,
  },
  {
    name: "sweep",
    label: "Settings",
    description: "The best values of settings, without a change of sizes.",
    head: `# The best values of settings: fields of the spec by dotted path, with a range or a list of values.
vary:
  optimizer.lr: {min: 1.0e-4, max: 2.0e-3, log: true}
strategy: auto                       # learns from the trials before; or grid, random
budget: {trials: 8, at_once: 1}      # and device_hours
`,
  },
];

/** Return a request with a spec, whose comments stay. */
export function withSpec({ head }: SearchTemplate, spec: string): string {
  const indented = spec
    .trimEnd()
    .split("\n")
    .map((line) => (line === "" ? "" : `  ${line}`));
  return `${head.replaceAll("TASK", () => firstTask(spec))}spec:\n${indented.join("\n")}\n`;
}

function firstTask(spec: string): string {
  const name: unknown = parse(spec).document.getIn(["evaluation", "tasks", 0, "name"]);
  return typeof name === "string" ? name : "TASK";
}
