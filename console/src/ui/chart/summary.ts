/** What a screen reader reads in place of a chart. */
import { significant } from "../../app/format";
import type { Curve } from "./align";

/** Return the newest value of each curve as a sentence. */
export function summary(title: string, curves: Curve[], format: (value: number) => string = significant): string {
  const parts = curves.map((curve) => {
    const last = lastPlace(curve);
    return last < 0 ? `${curve.label}: no points` : `${curve.label}: ${format(curve.y[last]!)} at ${curve.x[last]}`;
  });
  return `${title}. ${parts.join("; ")}`;
}

function lastPlace({ y }: Curve): number {
  for (let place = y.length - 1; place >= 0; place--) if (y[place] != null && !Number.isNaN(y[place])) return place;
  return -1;
}

/** Return the rows of a table of curves: at most `limit` of their steps, evenly spaced and with the last. */
export function rows(aligned: ArrayLike<ArrayLike<number | null | undefined>>, limit = 50): (number | null | undefined)[][] {
  const count = aligned[0]?.length ?? 0;
  const shown = Math.min(limit, count);
  return Array.from({ length: shown }, (_, row) => {
    const place = shown === 1 ? count - 1 : Math.round((row * (count - 1)) / (shown - 1));
    return Array.from(aligned, (values) => values[place]);
  });
}
