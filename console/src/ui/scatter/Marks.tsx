import { useRef, type KeyboardEvent } from "react";
import { MarkLink } from "./MarkLink";
import type { Scale } from "./scale";
import type { Group, Point } from "./types";

interface Props {
  points: Point[];
  groups: Group[];
  x: Scale;
  y: Scale;
  active: string | null;
  onActive: (key: string | null) => void;
  onOpen: (point: Point) => void;
}

const STEPS: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** The points, from left to right: one stop of the Tab key; arrow keys go from one to the next. */
export function Marks({ points, groups, x, y, active, onActive, onOpen }: Props) {
  const marks = useRef<(SVGElement | null)[]>([]);
  const ordered = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const stop = Math.max(
    0,
    ordered.findIndex((point) => point.key === active),
  );

  function move(event: KeyboardEvent, place: number): void {
    if (event.key === "Escape") onActive(null);
    const next = { Home: 0, End: ordered.length - 1 }[event.key] ?? place + (STEPS[event.key] ?? 0);
    if (next === place || next < 0 || next >= ordered.length) return;
    event.preventDefault();
    marks.current[next]?.focus();
  }

  return (
    <g>
      {ordered.map((point, place) => (
        <MarkLink
          key={point.key}
          ref={(element) => void (marks.current[place] = element)}
          point={point}
          group={groups.find((each) => each.name === point.group)!}
          left={x(point.x)}
          top={y(point.y)}
          isActive={point.key === active}
          isStop={place === stop}
          onActive={onActive}
          onOpen={onOpen}
          onKeyDown={(event) => move(event, place)}
        />
      ))}
    </g>
  );
}
