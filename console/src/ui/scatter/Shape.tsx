import type { Mark } from "./types";

/** A mark with an outline in the colour of the page, so that marks that touch stay distinct. */
export function Shape({
  mark,
  color,
  left,
  top,
  size = 5.5,
}: {
  mark: Mark;
  color: string;
  left: number;
  top: number;
  size?: number;
}) {
  const look = { fill: color, stroke: "var(--mantine-color-body)", strokeWidth: 1 };
  if (mark === "circle") return <circle cx={left} cy={top} r={size} {...look} />;
  const reach = size * 1.3;
  const corners =
    mark === "diamond"
      ? [
          [0, -reach],
          [reach, 0],
          [0, reach],
          [-reach, 0],
        ]
      : [
          [0, -reach],
          [reach, reach * 0.8],
          [-reach, reach * 0.8],
        ];
  return <polygon points={corners.map(([x, y]) => `${left + x!},${top + y!}`).join(" ")} {...look} />;
}
