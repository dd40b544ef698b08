/** The bars of a histogram of two groups, in a coordinate system of 0 to 1. */

export interface Bin {
  from: number;
  to: number;
  /** Counts of the two groups. */
  trueCount: number;
  shuffledCount: number;
  /** The counts as shares of the group's pairs. */
  trueShare: number;
  shuffledShare: number;
}

/** Return the bins of an agreement report; counts that lack a bin, or the reverse, are left out. */
export function binsOf(edges: number[], trueCounts: number[], shuffledCounts: number[]): Bin[] {
  const total = (counts: number[]) => counts.reduce((sum, count) => sum + count, 0) || 1;
  const [trueTotal, shuffledTotal] = [total(trueCounts), total(shuffledCounts)];
  const bins: Bin[] = [];
  for (let place = 0; place + 1 < edges.length; place += 1) {
    const [trueCount, shuffledCount] = [trueCounts[place] ?? 0, shuffledCounts[place] ?? 0];
    bins.push({
      from: edges[place]!,
      to: edges[place + 1]!,
      trueCount,
      shuffledCount,
      trueShare: trueCount / trueTotal,
      shuffledShare: shuffledCount / shuffledTotal,
    });
  }
  return bins;
}

/** The largest share of a bin: the height of the plot. */
export function highest(bins: Bin[]): number {
  return Math.max(1e-9, ...bins.map((bin) => Math.max(bin.trueShare, bin.shuffledShare)));
}

/** Return the outline of one group as the path of an SVG of this width and height, closed at the bottom. */
export function outline(bins: Bin[], share: (bin: Bin) => number, width: number, height: number): string {
  const top = highest(bins);
  const step = width / Math.max(1, bins.length);
  const parts = bins.map((bin, place) => {
    const y = round(height * (1 - share(bin) / top));
    return `L${round(place * step)} ${y}L${round((place + 1) * step)} ${y}`;
  });
  return `M0 ${height}${parts.join("")}L${width} ${height}Z`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
