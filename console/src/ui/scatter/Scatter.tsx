/** Points of several kinds on a logarithmic x axis, with the Pareto front of some kinds as a step line, and limits as lines. */
import { Box } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useMemo, useState } from "react";
import { visible } from "../../app/labels";
import { Axes } from "./Axes";
import { Legend } from "./Legend";
import { Limits } from "./Limits";
import { Marks } from "./Marks";
import { placeNames } from "./names";
import { frontSteps, paretoFront } from "./pareto";
import { linearScale, logScale, type Scale } from "./scale";
import { Tip } from "./Tip";
import type { Group, Limit, Point } from "./types";

interface Props {
  /** What the plot shows, for screen readers. */
  title: string;
  points: Point[];
  groups: Group[];
  /** The groups whose front is drawn, and what it is called. */
  frontOf: readonly string[];
  frontName: string;
  limits?: readonly Limit[];
  xLabel: string;
  yLabel: string;
  formatX: (value: number) => string;
  formatY: (value: number) => string;
  onOpen: (point: Point) => void;
  height?: number;
}

const MARGIN = { left: 70, right: 16, top: 14, bottom: 44 };

const NO_LIMITS: readonly Limit[] = [];

export function Scatter({ title, points, groups, frontOf, frontName, limits = NO_LIMITS, ...rest }: Props) {
  const { xLabel, yLabel, formatX, formatY, onOpen, height = 340 } = rest;
  const { ref, width } = useElementSize();
  const [active, setActive] = useState<string | null>(null);
  const [x, y] = useMemo(() => scales(points, limits, width, height), [points, limits, width, height]);
  const front = useMemo(() => paretoFront(points.filter((point) => frontOf.includes(point.group))), [points, frontOf]);
  const names = useMemo(() => {
    const named = frontFirst(points, front).map((point) => ({
      key: point.key,
      label: visible(point.label, 40),
      left: x(point.x),
      top: y(point.y),
    }));
    return placeNames(named, [MARGIN.left, width - 4]);
  }, [points, front, x, y, width]);
  const shown = points.find((point) => point.key === active);

  return (
    <Box>
      <Legend
        groups={groups.filter((group) => points.some((point) => point.group === group.name))}
        front={front.length > 0 ? frontName : null}
      />
      <Box ref={ref} pos="relative" style={{ minHeight: height }}>
        {width > 0 && (
          <svg
            width={width}
            height={height}
            role="group"
            aria-label={`${title}. Arrow keys go from point to point.`}
            style={{ display: "block", overflow: "visible" }}
          >
            <Axes
              x={x}
              y={y}
              width={width}
              height={height}
              margin={MARGIN}
              labels={[xLabel, yLabel]}
              formats={[formatX, formatY]}
            />
            <Limits limits={limits} x={x} y={y} width={width} height={height} margin={MARGIN} />
            <path
              d={line(frontSteps(front, x.domain[1]), x, y)}
              fill="none"
              stroke="var(--mantine-color-dimmed)"
              strokeWidth={1.5}
              strokeDasharray="5 4"
              aria-hidden
            />
            <g
              aria-hidden
              fontSize={11}
              fill="var(--mantine-color-text)"
              stroke="var(--mantine-color-body)"
              strokeWidth={3}
              paintOrder="stroke"
            >
              {names.map((name) => (
                <text key={name.key} x={name.left + name.dx} y={name.top + name.dy + 4} textAnchor={name.anchor}>
                  {name.label}
                </text>
              ))}
            </g>
            <Marks points={points} groups={groups} x={x} y={y} active={active} onActive={setActive} onOpen={onOpen} />
          </svg>
        )}
        {shown !== undefined && <Tip point={shown} left={x(shown.x)} top={y(shown.y)} width={width} />}
      </Box>
    </Box>
  );
}

function scales(points: Point[], limits: readonly Limit[], width: number, height: number): [Scale, Scale] {
  const at = (axis: Limit["axis"]) => limits.filter((limit) => limit.axis === axis).map((limit) => limit.at);
  return [
    logScale([...points.map((point) => point.x), ...at("x")], [MARGIN.left, Math.max(width - MARGIN.right, MARGIN.left + 1)]),
    linearScale([...points.map((point) => point.y), ...at("y")], [height - MARGIN.bottom, MARGIN.top], [0, 1]),
  ];
}

function frontFirst(points: Point[], front: Point[]): Point[] {
  return [...front, ...points.filter((point) => !front.includes(point))];
}

function line(corners: { x: number; y: number }[], x: Scale, y: Scale): string {
  return corners.map((corner, place) => `${place === 0 ? "M" : "L"}${x(corner.x).toFixed(1)} ${y(corner.y).toFixed(1)}`).join("");
}
