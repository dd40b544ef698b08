/** The report of a replica about its engine, read carefully: its form is that of the replica's version. */

export interface Trial {
  engine: string;
  imagesPerSecond: number | null;
  cosine: number | null;
  refused: string;
}

export interface EngineReport {
  engine: string;
  asked: string;
  reason: string;
  device: string;
  threads: number | null;
  batch: number | null;
  pictures: number | null;
  minCosine: number | null;
  trials: Trial[];
  canaryError: string;
}

export function readReport(health: Record<string, unknown>): EngineReport {
  const report = record(health["engine_report"]);
  const trials = Array.isArray(report["trials"]) ? report["trials"].map(record) : [];
  return {
    engine: text(report["engine"]) || text(health["engine"]),
    asked: text(report["asked"]),
    reason: text(report["reason"]),
    device: text(report["device"]),
    threads: number(report["threads"]),
    batch: number(report["batch"]),
    pictures: number(report["pictures"]),
    minCosine: number(report["min_cosine"]),
    trials: trials.map((trial) => ({
      engine: text(trial["engine"]),
      imagesPerSecond: number(trial["images_per_second"]),
      cosine: number(trial["cosine"]),
      refused: text(trial["refused"]),
    })),
    canaryError: text(record(health["canary"])["error"]),
  };
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
