/** Which series share a chart. */
import { significant } from "../../../app/format";

export interface Group {
  key: string;
  title: string;
  names: string[];
  /** Few points, drawn as such. */
  sparse: boolean;
  format: (value: number) => string;
}

const NAMED: Record<string, [key: string, title: string]> = {
  loss: ["loss", "Loss"],
  lr: ["lr", "Learning rate"],
  sparsity: ["sparsity", "Sparsity"],
  target_sparsity: ["sparsity", "Sparsity"],
  teacher_kl: ["agreement", "Divergence from the teacher on fixed pairs"],
  grad_norm: ["grad_norm", "Norm of the gradient"],
  pairs_per_second: ["speed", "Pairs per second"],
};
const ORDER = ["loss", "lr", "sparsity", "kept", "agreement", "evaluation", "terms", "grad_norm", "speed", "counts"];
const share = (value: number) => `${significant(100 * value)} %`;

/** Return the groups of series by name, in the order in which they are shown; a task's scores share a chart. */
export function groupSeries(names: readonly string[]): Group[] {
  const groups = new Map<string, Group>();
  for (const name of [...names].sort()) {
    const [key, title] = groupOf(name);
    const group = groups.get(key) ?? {
      key,
      title,
      names: [],
      sparse: key.startsWith("evaluation") || key === "agreement",
      format: formatOf(key),
    };
    group.names.push(name);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => rank(a.key) - rank(b.key) || a.key.localeCompare(b.key));
}

function groupOf(name: string): [key: string, title: string] {
  const named = NAMED[name];
  if (named !== undefined) return named;
  const task = name.lastIndexOf("/");
  if (task > 0 && !isScore(name)) return ["counts", "Evaluated samples and time"];
  if (task > 0) return [`evaluation/${name.slice(0, task)}`, `Evaluation: ${name.slice(0, task)}`];
  if (name.endsWith("_kept")) return ["kept", "Kept of the original"];
  return ["terms", "Terms of the loss"];
}

function rank(key: string): number {
  const place = ORDER.indexOf(key.startsWith("evaluation/") ? "evaluation" : key);
  return place < 0 ? ORDER.length : place;
}

function formatOf(key: string): (value: number) => string {
  return key.startsWith("evaluation/") || key === "sparsity" || key === "kept" ? share : significant;
}

/** Return the name of a series without what the title of its group says already. */
export function shortName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1).replaceAll("_", " ");
}

const NO_SCORE = /(^|\/)(samples|texts|images|captions|skipped|skipped_shards|ms_per_image)$/;

/** Return whether a number of an evaluation is a score, and not a count or a time. */
export function isScore(name: string): boolean {
  return !NO_SCORE.test(name);
}

/** Return the groups to begin with: without counts, and without the only term of a loss, which is the loss itself. */
export function usualGroups(names: readonly string[]): Group[] {
  return groupSeries(names).filter((group) => group.key !== "counts" && !(group.key === "terms" && group.names.length === 1));
}
