/** Scales of a plot's axes: values to pixels, and where the ticks are. */

export interface Scale {
  /** Return the pixel of a value. */
  (value: number): number;
  ticks: number[];
  domain: [number, number];
}

/** Return a logarithmic scale of positive values, with a little room on both sides. */
export function logScale(values: readonly number[], pixels: [number, number]): Scale {
  const [least, most] = range(values, [1, 10]);
  const room = Math.max((most / least) ** 0.08, 1.15);
  const domain: [number, number] = [least / room, most * room];
  const [low, high] = domain.map(Math.log) as [number, number];
  const scale = (value: number) => pixels[0] + ((Math.log(value) - low) / (high - low)) * (pixels[1] - pixels[0]);
  return Object.assign(scale, { ticks: logTicks(domain), domain });
}

/** Return a linear scale of values, with a little room, within `limits`. */
export function linearScale(
  values: readonly number[],
  pixels: [number, number],
  limits: [number, number] = [-Infinity, Infinity],
): Scale {
  const [least, most] = range(values, [0, 1]);
  const room = Math.max(0.1 * (most - least), 0.02 * Math.abs(most), 1e-6);
  const domain: [number, number] = [Math.max(least - room, limits[0]), Math.min(most + room, limits[1])];
  const scale = (value: number) => pixels[0] + ((value - domain[0]) / (domain[1] - domain[0])) * (pixels[1] - pixels[0]);
  return Object.assign(scale, { ticks: linearTicks(domain), domain });
}

/** Return 1, 2 and 5 times powers of ten; or, in a domain that has less than three of them, evenly spaced values. */
export function logTicks([least, most]: [number, number]): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) {
    for (const digit of [1, 2, 5]) {
      const tick = Number(`${digit}e${power}`);
      if (tick >= least && tick <= most) ticks.push(tick);
    }
  }
  if (ticks.length < 3) return linearTicks([least, most], 4);
  return ticks.length > 9 ? ticks.filter((tick) => String(tick.toExponential()).startsWith("1")) : ticks;
}

/** Return about `count` round values. */
export function linearTicks([least, most]: [number, number], count = 5): number[] {
  const rough = (most - least) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough) ?? rough;
  const ticks: number[] = [];
  for (let at = Math.ceil(least / step - 1e-9); at * step <= most + 1e-9 * step; at += 1)
    ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

function range(values: readonly number[], otherwise: [number, number]): [number, number] {
  if (values.length === 0) return otherwise;
  return values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
}
