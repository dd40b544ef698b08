/** A grid of thumbnails with captions: arrow keys move between them, and of a long grid only the rows in view exist. */
import { useElementSize } from "@mantine/hooks";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { useCallback, useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { ImageTile } from "./ImageTile";
import { columnsOf, moved } from "./gridPlaces";

export interface GridImage {
  id: string;
  /** The address of the picture at the API; null: it has none. */
  src: string | null;
  /** What the picture shows, for screen readers. */
  alt: string;
  caption: ReactNode;
}

interface Props {
  label: string;
  images: GridImage[];
  onOpen: (id: string) => void;
  /** Side of a thumbnail in pixels. */
  size?: number;
  /** Height of a tile's caption in pixels: rows of a long grid have one height. */
  captionHeight?: number;
  /** A further control of a tile, such as "More like this". */
  action?: (id: string, tabIndex: number) => ReactNode;
}

const GAP = 12;
/** Longer grids have only the rows in view. */
const MOST_AT_ONCE = 120;

export function ImageGrid({ label, images, onOpen, size = 128, captionHeight = 56, action }: Props) {
  const { ref, width } = useElementSize();
  const columns = columnsOf(width, size, GAP);
  const { active, setActive, onKeyDown, grid } = useRovingFocus(images.length, columns);
  const rows = Math.ceil(images.length / columns);
  const height = size + captionHeight + GAP;
  const virtual = useRows(images.length > MOST_AT_ONCE ? rows : 0, height, grid);
  const shown = images.length > MOST_AT_ONCE ? virtual.rows : Array.from({ length: rows }, (_, row) => ({ row, top: undefined }));

  return (
    <div ref={ref}>
      <div ref={grid} role="list" aria-label={label} onKeyDown={onKeyDown} style={{ position: "relative", height: virtual.height }}>
        {width > 0 &&
          shown.map(({ row, top }) => (
            <div key={row} role="none" style={rowStyle(columns, top)}>
              {images.slice(row * columns, (row + 1) * columns).map((image, column) => {
                const place = row * columns + column;
                const tabIndex = place === Math.min(active, images.length - 1) ? 0 : -1;
                return (
                  <ImageTile
                    key={image.id}
                    image={image}
                    size={size}
                    captionHeight={captionHeight}
                    place={place}
                    count={images.length}
                    tabIndex={tabIndex}
                    onFocus={setActive}
                    onOpen={onOpen}
                    action={action?.(image.id, tabIndex)}
                  />
                );
              })}
            </div>
          ))}
      </div>
    </div>
  );
}

function rowStyle(columns: number, top: number | undefined) {
  const place = top === undefined ? { marginBottom: GAP } : ({ position: "absolute", insetInline: 0, transform: `translateY(${top}px)` } as const);
  return { ...place, display: "grid", gap: GAP, gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))` };
}

/** The rows in view of a grid in the page. With no rows, nothing is measured. */
function useRows(count: number, height: number, grid: { current: HTMLDivElement | null }) {
  const [offset, setOffset] = useState(0);
  useLayoutEffect(() => {
    if (grid.current !== null) setOffset(grid.current.getBoundingClientRect().top + window.scrollY);
  }, [count, grid]);
  const virtualizer = useWindowVirtualizer({ count, estimateSize: () => height, overscan: 3, scrollMargin: offset });
  const rows = virtualizer.getVirtualItems().map((item) => ({ row: item.index, top: item.start - offset }));
  return { rows, height: count > 0 ? virtualizer.getTotalSize() : undefined };
}

/** One tile of the grid can be reached with Tab; arrow keys, Home and End choose which. */
function useRovingFocus(count: number, columns: number) {
  const grid = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(0);
  const onKeyDown = useCallback(
    (event: KeyboardEvent) => {
      const next = moved(event.key, active, count, columns);
      if (next === null) return;
      event.preventDefault();
      setActive(next);
      // A row that is out of view has to be made first.
      const focus = (tries: number) => {
        const tile = grid.current?.querySelector<HTMLElement>(`[data-place="${next}"]`);
        if (tile != null) tile.focus();
        else if (tries > 0) requestAnimationFrame(() => focus(tries - 1));
      };
      focus(10);
    },
    [active, count, columns],
  );
  return { active, setActive, onKeyDown, grid };
}
