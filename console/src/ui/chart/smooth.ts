/** Return the exponential moving average of values: `keep` is the weight of what was before, the start is corrected; 0: as is. */
export function smooth(values: ArrayLike<number | null>, keep: number): ArrayLike<number | null> {
  if (keep <= 0) return values;
  const smoothed = new Float64Array(values.length);
  let sum = 0;
  let weight = 0;
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    if (value === null || value === undefined || !Number.isFinite(value)) {
      smoothed[index] = NaN;
      continue;
    }
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    smoothed[index] = sum / weight;
  }
  return smoothed;
}
