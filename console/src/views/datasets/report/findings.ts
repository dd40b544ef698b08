/** The order, the names and the colours of findings. */
import type { Finding } from "../queries";

const SEVERITIES = ["error", "warning", "info"] as const;
export const SEVERITY_COLOR: Record<Finding["severity"], string> = { error: "red", warning: "orange", info: "blue" };

/** The most serious first; within a severity those that concern the most samples. */
export function bySeverity(findings: Finding[]): Finding[] {
  return [...findings].sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) || b.share - a.share);
}

/** `near_duplicate_images` as `Near duplicate images`, `url_captions` as `URL captions`. */
export function titleOf(code: string): string {
  const words = code.replaceAll("_", " ").replace(/\b(url|html)\b/g, (word) => word.toUpperCase());
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** How many findings there are of each severity, as `1 error, 2 warnings`. */
export function countsOf(findings: Finding[]): string {
  const parts = SEVERITIES.map((severity) => {
    const count = findings.filter((finding) => finding.severity === severity).length;
    if (count === 0) return null;
    if (severity === "info") return count === 1 ? "1 note" : `${count} notes`;
    return `${count} ${severity}${count === 1 ? "" : "s"}`;
  });
  return parts.filter((part) => part !== null).join(", ") || "none";
}

export interface Example {
  key: string;
  shard: string;
  detail: string;
}

/** Examples are free objects in the API: read what is known of them. */
export function examplesOf(finding: Finding): Example[] {
  const text = (value: unknown) => (typeof value === "string" ? value : value == null ? "" : JSON.stringify(value));
  return finding.examples.map((example) => ({
    key: text(example.key),
    shard: text(example.shard),
    detail: text(example.detail),
  }));
}

/** What a finding counts: samples, or shards. */
export function unitOf({ code, count }: Finding): string {
  const unit = code === "broken_shards" ? "shard" : "sample";
  return count === 1 ? unit : `${unit}s`;
}
