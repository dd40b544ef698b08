import { visible } from "../../app/labels";
import type { Scale } from "./scale";
import type { Limit } from "./types";

interface Props {
  limits: readonly Limit[];
  x: Scale;
  y: Scale;
  width: number;
  height: number;
  margin: { left: number; right: number; top: number; bottom: number };
}

const COLOR = "light-dark(var(--mantine-color-red-8), var(--mantine-color-red-4))";

/** Lines at the limits of both axes, with what they say; screen readers get them from the texts beside the plot. */
export function Limits({ limits, x, y, width, height, margin }: Props) {
  const [top, bottom, right] = [margin.top, height - margin.bottom, width - margin.right];
  return (
    <g
      aria-hidden
      fontSize={11}
      stroke="var(--mantine-color-body)"
      strokeWidth={3}
      paintOrder="stroke"
      style={{ fill: COLOR }}
      className="user-text"
    >
      {limits.map(({ axis, at, label }) => {
        const text = visible(label, 60);
        if (axis === "y") {
          return (
            <g key={`${axis} ${at} ${label}`}>
              <Line from={[margin.left, y(at)]} to={[right, y(at)]} />
              <text x={right - 4} y={y(at) + 13} textAnchor="end">
                {text}
              </text>
            </g>
          );
        }
        const isLeft = x(at) > (margin.left + right) / 2;
        return (
          <g key={`${axis} ${at} ${label}`}>
            <Line from={[x(at), top]} to={[x(at), bottom]} />
            <text x={x(at) + (isLeft ? -5 : 5)} y={top + 10} textAnchor={isLeft ? "end" : "start"}>
              {text}
            </text>
          </g>
        );
      })}
    </g>
  );
}

function Line({ from: [x1, y1], to: [x2, y2] }: { from: [number, number]; to: [number, number] }) {
  return <line x1={x1} y1={y1} x2={x2} y2={y2} strokeWidth={1.3} strokeDasharray="7 3" style={{ stroke: COLOR }} />;
}
