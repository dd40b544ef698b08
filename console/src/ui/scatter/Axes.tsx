import type { Scale } from "./scale";

interface Props {
  x: Scale;
  y: Scale;
  width: number;
  height: number;
  margin: { left: number; right: number; top: number; bottom: number };
  labels: [string, string];
  formats: [(value: number) => string, (value: number) => string];
}

const LINE = "var(--mantine-color-default-border)";

/** The lines, ticks and names of both axes; screen readers get the values from the points. */
export function Axes({ x, y, width, height, margin, labels, formats }: Props) {
  const bottom = height - margin.bottom;
  const xTicks = everyFitting(x.ticks, Math.max(2, Math.floor((width - margin.left) / 62)));
  return (
    <g aria-hidden fontSize={11} fill="var(--mantine-color-dimmed)">
      {y.ticks.map((tick) => (
        <g key={tick}>
          <line x1={margin.left} x2={width - margin.right} y1={y(tick)} y2={y(tick)} stroke={LINE} />
          <text x={margin.left - 8} y={y(tick) + 4} textAnchor="end">
            {formats[1](tick)}
          </text>
        </g>
      ))}
      {xTicks.map((tick) => (
        <g key={tick}>
          <line x1={x(tick)} x2={x(tick)} y1={margin.top} y2={bottom} stroke={LINE} strokeDasharray="2 4" />
          <text x={x(tick)} y={bottom + 16} textAnchor="middle">
            {formats[0](tick)}
          </text>
        </g>
      ))}
      <line x1={margin.left} x2={width - margin.right} y1={bottom} y2={bottom} stroke="var(--mantine-color-dimmed)" />
      <text x={(margin.left + width - margin.right) / 2} y={height - 6} textAnchor="middle" fontSize={12}>
        {labels[0]}
      </text>
      <text transform={`translate(12 ${(margin.top + bottom) / 2}) rotate(-90)`} textAnchor="middle" fontSize={12}>
        {labels[1]}
      </text>
    </g>
  );
}

function everyFitting(ticks: number[], most: number): number[] {
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, place) => place % every === 0);
}
