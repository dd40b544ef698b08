/** A grid of thumbnails with captions: arrow keys move between them, and of a long grid only the rows in view exist. */
import { useElementSize } from "@mantine/hooks";
import { defaultRangeExtractor, useWindowVirtualizer } from "@tanstack/react-virtual";
import { useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
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
  const grid = useRef<HTMLDivElement>(null);
  const [chosen, setActive] = useState(0);
  const active = Math.max(0, Math.min(chosen, images.length - 1)); // there may be fewer images than before
  const rows = Math.ceil(images.length / columns);
  const height = size + captionHeight + GAP;
  const virtual = useRows(images.length > MOST_AT_ONCE ? rows : 0, height, grid, Math.floor(active / columns));
  const onKeyDown = useArrowKeys({ active, setActive, count: images.length, columns, grid, reveal: virtual.reveal });
  const shown = images.length > MOST_AT_ONCE ? virtual.rows : Array.from({ length: rows }, (_, row) => ({ row, top: undefined }));

  return (
    <div ref={ref}>
      <div
        ref={grid}
        role="list"
        aria-label={label}
        onKeyDown={onKeyDown}
        style={{ position: "relative", height: virtual.height }}
      >
        {width > 0 &&
          shown.map(({ row, top }) => (
            <div key={row} role="none" style={rowStyle(columns, top)}>
              {images.slice(row * columns, (row + 1) * columns).map((image, column) => {
                const place = row * columns + column;
                const tabIndex = place === active ? 0 : -1;
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
  const place =
    top === undefined
      ? { marginBottom: GAP }
      : ({ position: "absolute", insetInline: 0, transform: `translateY(${top}px)` } as const);
  return { ...place, display: "grid", gap: GAP, gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))` };
}

/** The rows in view of a grid in the page, and the active one, which Tab leads to. With no rows, nothing is measured. */
function useRows(count: number, height: number, grid: { current: HTMLDivElement | null }, active: number) {
  const [offset, setOffset] = useState(0);
  useLayoutEffect(() => {
    if (grid.current !== null) setOffset(grid.current.getBoundingClientRect().top + window.scrollY);
  }, [count, grid]);
  const virtualizer = useWindowVirtualizer({
    count,
    estimateSize: () => height,
    overscan: 3,
    scrollMargin: offset,
    rangeExtractor: (range) => withRow(defaultRangeExtractor(range), active),
  });
  const rows = virtualizer.getVirtualItems().map((item) => ({ row: item.index, top: item.start - offset }));
  const reveal = (row: number) => count > 0 && virtualizer.scrollToIndex(row, { align: "auto" });
  return { rows, height: count > 0 ? virtualizer.getTotalSize() : undefined, reveal };
}

function withRow(rows: number[], row: number): number[] {
  return rows.includes(row) ? rows : [...rows, row].sort((a, b) => a - b);
}

interface Keys {
  active: number;
  setActive: (place: number) => void;
  count: number;
  columns: number;
  grid: { current: HTMLDivElement | null };
  /** Scroll to a row, which is made thereby. */
  reveal: (row: number) => void;
}

/** One tile of the grid can be reached with Tab; arrow keys, Home and End choose which. */
function useArrowKeys({ active, setActive, count, columns, grid, reveal }: Keys) {
  return (event: KeyboardEvent) => {
    const next = moved(event.key, active, count, columns);
    if (next === null) return;
    event.preventDefault();
    setActive(next);
    if (!focusTile(grid.current, next)) {
      reveal(Math.floor(next / columns));
      whenMade(() => focusTile(grid.current, next), 30);
    }
  };
}

function focusTile(grid: HTMLElement | null, place: number): boolean {
  const tile = grid?.querySelector<HTMLElement>(`[data-place="${place}"]`);
  tile?.focus();
  return tile != null;
}

/** Try once a frame until it succeeds. */
function whenMade(attempt: () => boolean, tries: number): void {
  requestAnimationFrame(() => {
    if (!attempt() && tries > 0) whenMade(attempt, tries - 1);
  });
}
