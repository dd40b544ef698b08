/** Where the names of points are written without covering one another. */

export interface Named {
  key: string;
  label: string;
  /** Of the mark, in pixels. */
  left: number;
  top: number;
}

export interface PlacedName extends Named {
  anchor: "start" | "end";
  /** From the mark's place. */
  dx: number;
  dy: number;
}

type Side = Pick<PlacedName, "anchor" | "dx" | "dy">;
/** Where a name is tried, first below to the right: the front goes on to the right and comes from the left or below. */
const SIDES: Side[] = [
  { anchor: "start", dx: 8, dy: 10 },
  { anchor: "end", dx: -9, dy: 0 },
  { anchor: "start", dx: 8, dy: -10 },
  { anchor: "start", dx: 9, dy: 0 },
];

const CHARACTER = 6.3;
const HEIGHT = 13;

/** Return the names that fit beside their marks, between two pixels; those of the first points win. */
export function placeNames(points: readonly Named[], [from, to]: [number, number]): PlacedName[] {
  const marks = points.map(({ left, top }) => box(left - 6, top - 6, 12, 12));
  const taken: Box[] = [];
  return points.flatMap((point, place) => {
    const length = point.label.length * CHARACTER;
    const others = [...marks.filter((_, other) => other !== place), ...taken];
    for (const side of SIDES) {
      const left = point.left + side.dx - (side.anchor === "end" ? length : 0);
      const wanted = box(left, point.top + side.dy - HEIGHT / 2, length, HEIGHT);
      if (left < from || left + length > to || others.some((other) => overlap(wanted, other))) continue;
      taken.push(wanted);
      return [{ ...point, ...side }];
    }
    return [];
  });
}

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

function box(left: number, top: number, width: number, height: number): Box {
  return { left, top, right: left + width, bottom: top + height };
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}
