/** Numbers with units, and times in the browser's time zone. */

const LOCALE = typeof navigator === "undefined" ? "en" : navigator.language;
const NONE = "–";

type Maybe<T> = T | null | undefined;

const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });

export function integer(value: Maybe<number>): string {
  return value == null ? NONE : whole.format(value);
}

/** `1234567` as `1.23M`: for parameters, MACs and samples. */
export function compact(value: Maybe<number>, unit = ""): string {
  if (value == null) return NONE;
  const steps: [number, string][] = [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ];
  for (const [size, letter] of steps) {
    if (Math.abs(value) >= size * 0.9995) return `${significant(value / size)}${letter}${unit}`;
  }
  return `${significant(value)}${unit}`;
}

/** Three significant digits without an exponent. */
export function significant(value: Maybe<number>, digits = 3): string {
  if (value == null || !Number.isFinite(value)) return value == null ? NONE : String(value);
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(Math.max(0, digits - 2));
  return new Intl.NumberFormat(LOCALE, { maximumSignificantDigits: digits, useGrouping: true }).format(value);
}

/** A share of 1 as percent. */
export function percent(value: Maybe<number>, digits = 1): string {
  return value == null ? NONE : `${(100 * value).toFixed(digits)} %`;
}

export function bytes(value: Maybe<number>): string {
  if (value == null) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let size = value;
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : significant(size)} ${units[unit]}`;
}

/** Seconds as `850 ms`, `42 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`. */
export function duration(seconds: Maybe<number>): string {
  if (seconds == null) return NONE;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const total = Math.round(seconds);
  if (total < 60) return `${total} s`;
  if (total < 3600) return join(Math.floor(total / 60), "min", total % 60, "s");
  if (total < 86_400) return join(Math.floor(total / 3600), "h", Math.floor((total % 3600) / 60), "min");
  return join(Math.floor(total / 86_400), "d", Math.floor((total % 86_400) / 3600), "h");
}

function join(first: number, unit: string, second: number, smaller: string): string {
  return second === 0 ? `${first} ${unit}` : `${first} ${unit} ${second} ${smaller}`;
}

export function milliseconds(value: Maybe<number>): string {
  return value == null ? NONE : `${significant(value)} ms`;
}

const moment = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(LOCALE, { timeStyle: "medium" });

/** A time of the API (RFC 3339, UTC) in the local time zone. */
export function dateTime(value: Maybe<string>): string {
  return value == null ? NONE : moment.format(new Date(value));
}

export function timeOfDay(value: Maybe<string>): string {
  return value == null ? NONE : clock.format(new Date(value));
}

/** `5 min ago`. */
export function ago(value: Maybe<string>, now: number = Date.now()): string {
  if (value == null) return NONE;
  const seconds = Math.max(0, (now - new Date(value).getTime()) / 1000);
  if (seconds < 5) return "now";
  const units: [number, string][] = [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const [size, unit] = units.find(([length]) => seconds >= length) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** Seconds between two times of the API; until now without an end. */
export function elapsed(from: Maybe<string>, to: Maybe<string>, now: number = Date.now()): number | null {
  if (from == null) return null;
  return ((to == null ? now : new Date(to).getTime()) - new Date(from).getTime()) / 1000;
}
