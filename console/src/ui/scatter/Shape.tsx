import type { Mark } from "./types";

/** A mark with an outline in the colour of the page, so that marks that touch stay distinct. */
export function Shape({
  mark,
  color,
  left,
  top,
  size = 5.5,
  isFaint = false,
}: {
  mark: Mark;
  color: string;
  left: number;
  top: number;
  size?: number;
  isFaint?: boolean;
}) {
  const look = { fill: color, stroke: "var(--mantine-color-body)", strokeWidth: 1, opacity: isFaint ? 0.45 : 1 };
  if (mark === "circle") return <circle cx={left} cy={top} r={size} {...look} />;
  const reach = size * 1.3;
  if (mark === "star") return <polygon points={star(left, top, size * 1.7)} {...look} />;
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

function star(left: number, top: number, reach: number): string {
  return Array.from({ length: 10 }, (_, corner) => {
    const [radius, angle] = [corner % 2 === 0 ? reach : reach * 0.45, (Math.PI * corner) / 5];
    return `${(left + radius * Math.sin(angle)).toFixed(1)},${(top - radius * Math.cos(angle)).toFixed(1)}`;
  }).join(" ");
}
