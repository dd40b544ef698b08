/** What students cost, as the x axis of the front. */
import { bytes, compact, milliseconds } from "../../../app/format";
import type { Constraint, Search, Trial } from "../requests";
import { limitOf } from "../words";

export interface Cost {
  /** Of the address: `bytes`, `params`, `macs`, or `ENGINE image:1` for a latency (by several threads `image:1:4`). */
  key: string;
  label: string;
  format: (value: number) => string;
  of: (trial: Trial) => number | null;
  /** The engine of a latency. */
  engine: string | null;
}

const SIZES: Cost[] = [
  { key: "bytes", label: "File of the weights", format: bytes, of: ({ bytes: size }) => size ?? null, engine: null },
  { key: "params", label: "Parameters", format: (value) => compact(value), of: ({ params }) => params ?? null, engine: null },
  {
    key: "macs",
    label: "MACs of an image and a text",
    format: (value) => compact(value),
    of: ({ macs }) => macs ?? null,
    engine: null,
  },
];

/** Return the costs that some trial has, measured latencies first. */
export function costsOf(trials: readonly Trial[]): Cost[] {
  const keys = trials.flatMap(({ measurements }) =>
    measurements.flatMap(({ engine, latency_ms }) => Object.keys(latency_ms).map((place) => `${engine} ${place}`)),
  );
  const sizes = SIZES.filter((cost) => trials.some((trial) => cost.of(trial) !== null));
  return [...[...new Set(keys)].sort().map(latencyCost), ...sizes];
}

function latencyCost(key: string): Cost {
  const [engine, place] = [key.slice(0, key.lastIndexOf(" ")), key.slice(key.lastIndexOf(" ") + 1)];
  return {
    key,
    engine,
    label: `Latency, ${engine}, ${placeInWords(place)}`,
    format: milliseconds,
    of: ({ measurements }) => measurements.find((each) => each.engine === engine)?.latency_ms[place] ?? null,
  };
}

/** `image:8:4` as `image tower, batch 8, 4 threads`; one thread is not named. */
export function placeInWords(place: string): string {
  const [tower, batch, threads] = place.split(":");
  if (batch === undefined) return place;
  return `${tower} tower, batch ${batch}${threads === undefined ? "" : `, ${threads} threads`}`;
}

/** Return the cost that a constraint limits. */
export function costKey(constraint: Constraint): string | null {
  const limit = limitOf(constraint);
  if (limit === null) return null;
  if (limit.name !== "latency_ms") return limit.name;
  const { engine, tower, batch, threads } = constraint;
  return `${engine} ${tower}:${batch}${threads === 1 ? "" : `:${threads}`}`;
}

/** Return the cost that the search is about: the first one that is limited or to be least, if trials have it. */
export function usualCost(costs: readonly Cost[], { post }: Pick<Search, "post">): Cost | undefined {
  const wanted = [...post.constraints.map(costKey), post.minimize];
  return wanted.flatMap((key) => costs.find((cost) => cost.key === key) ?? [])[0] ?? costs.find(({ engine }) => engine === null);
}
