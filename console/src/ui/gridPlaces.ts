/** Places in a grid of images. */

/** Return how many tiles of a size stand beside each other. */
export function columnsOf(width: number, size: number, gap: number): number {
  return Math.max(1, Math.floor((width + gap) / (size + 18 + gap)));
}

/** Return the place that a key leads to, or null if it is none of the grid's keys or leads out of it. */
export function moved(key: string, from: number, count: number, columns: number): number | null {
  const steps: Record<string, number> = {
    ArrowRight: from + 1,
    ArrowLeft: from - 1,
    ArrowDown: from + columns,
    ArrowUp: from - columns,
    Home: 0,
    End: count - 1,
  };
  const to = steps[key];
  if (to === undefined || to < 0 || to >= count || to === from) return null;
  return to;
}
