/** Buckets of a histogram of whole numbers, with labels. */
import type { Schemas } from "../../../api/client";

/** `1`, `2`, `3 to 4`, … and `65 and more`; without the empty ones above the largest that is used. */
export function bucketsOf(buckets: Schemas["Bucket"][]): { label: string; count: number }[] {
  const last = buckets.findLastIndex(({ count }) => count > 0);
  return buckets.slice(0, last + 1).map(({ up_to, count }, place) => {
    const from = (place === 0 ? 0 : (buckets[place - 1]!.up_to ?? 0)) + 1;
    const label = up_to == null ? `${from} and more` : from >= up_to ? String(up_to) : `${from} to ${up_to}`;
    return { label, count };
  });
}
