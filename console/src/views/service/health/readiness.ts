/** The report of `/readyz`: a state for each dependency, `ok` or the reason. */

export interface Readiness {
  status: string;
  parts: Record<string, string>;
  /** Why it is not ready; empty if it is. */
  reasons: string;
}

export interface Part {
  name: string;
  title: string;
  description: string;
  /** `ok`, or what is wrong; null: not reported. */
  state: string | null;
}

const KNOWN = [
  { name: "database", title: "Database", description: "Jobs, models and all other resources are stored here." },
  { name: "artifacts", title: "Artifacts store", description: "Checkpoints, models and indexes: server and workers share it." },
  { name: "ray", title: "Ray", description: "Runs jobs and replicas. Without it jobs wait." },
  { name: "scheduler", title: "Scheduler", description: "Starts jobs and reads their events." },
];

/** Return all dependencies, also those that this version of the console does not know. */
export function partsOf({ parts, reasons, status }: Readiness): Part[] {
  const isKnown = new Set(KNOWN.map(({ name }) => name));
  const others = Object.keys(parts)
    .filter((name) => !isKnown.has(name))
    .map((name) => ({ name, title: name, description: "" }));
  return [...KNOWN, ...others].map((part) => ({
    ...part,
    state: parts[part.name] ?? (status === "not ready" ? reasonFor(part.name, reasons) : null),
  }));
}

/** `database cannot be reached; ray …` has the reasons of a server that is not ready. */
function reasonFor(name: string, reasons: string): string | null {
  const found = reasons
    .replace(/^not ready: /, "")
    .split("; ")
    .find((reason) => reason.startsWith(`${name} `));
  return found === undefined ? null : found.slice(name.length + 1);
}
