import type { KeyboardEvent, MouseEvent, Ref } from "react";
import { visible } from "../../app/labels";
import { Shape } from "./Shape";
import type { Group, Point } from "./types";

interface Props {
  ref: Ref<SVGElement & SVGGElement & HTMLAnchorElement>;
  point: Point;
  group: Group;
  left: number;
  top: number;
  isActive: boolean;
  /** The Tab key stops here. */
  isStop: boolean;
  onActive: (key: string | null) => void;
  onOpen: (point: Point) => void;
  onKeyDown: (event: KeyboardEvent) => void;
}

/** One point: a link where it leads somewhere, otherwise a picture with a description. */
export function MarkLink({ ref, point, group, left, top, isActive, isStop, onActive, onOpen, onKeyDown }: Props) {
  const shared = {
    ref,
    tabIndex: isStop ? 0 : -1,
    "aria-label": visible([point.label, ...point.details.map(([name, value]) => `${name} ${value}`)].join(", "), 400),
    onFocus: () => onActive(point.key),
    onBlur: () => onActive(null),
    onMouseEnter: () => onActive(point.key),
    onMouseLeave: () => onActive(null),
    onKeyDown,
    style: { outline: "none" }, // the ring below is seen better
  };
  const drawing = (
    <>
      <circle
        cx={left}
        cy={top}
        r={12}
        fill="transparent"
        stroke={isActive ? "var(--mantine-color-text)" : "none"}
        strokeWidth={1.5}
      />
      <Shape mark={group.mark} color={group.color} left={left} top={top} isFaint={group.isFaint ?? false} />
    </>
  );
  if (point.href === undefined) {
    return (
      <g role="img" {...shared}>
        {drawing}
      </g>
    );
  }
  return (
    <a href={point.href} onClick={(event) => openHere(event, () => onOpen(point))} {...shared}>
      {drawing}
    </a>
  );
}

/** A plain click stays in this tab; with a key or another button the browser follows the link. */
function openHere(event: MouseEvent, open: () => void): void {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0) return;
  event.preventDefault();
  open();
}
