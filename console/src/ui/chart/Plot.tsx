/** uPlot in React: made anew if its look changes, given new data otherwise. */
import "uplot/dist/uPlot.min.css";
import "./plot.css";
import { Box, useComputedColorScheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { align, type Curve } from "./align";
import type { ChartProps } from "./Chart";
import { options } from "./options";
import { reduce } from "./reduce";

/** Width of a column whose points are drawn as one stroke from its lowest to its highest. */
const PIXELS = 2;

type Props = Required<Omit<ChartProps, "group" | "heading">> & { group: string | undefined };

export default function Plot({ title, curves, height, xLabel, logarithmic, format, group, marks }: Props) {
  const { ref: sizeRef, width } = useElementSize();
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const began = useRef<number | null>(null);
  const drawn = useRef<Curve[] | null>(null);
  const isDark = useComputedColorScheme("light") === "dark";
  const latest = useRef({ title, curves, height, width, xLabel, logarithmic, format, group, marks, isDark });
  latest.current = { title, curves, height, width, xLabel, logarithmic, format, group, marks, isDark };
  const hasWidth = width > 0;
  const look = JSON.stringify([
    curves.map(({ label, color, dash, points }) => [label, color, dash, points]),
    isDark,
    logarithmic,
    xLabel,
    group,
    height,
    marks,
  ]);

  useEffect(() => {
    if (place.current === null || !hasWidth) return;
    const present = latest.current;
    began.current = performance.now();
    let shownFrom = Number.NaN;
    let shownTo = Number.NaN;
    const onScale = (current: uPlot, scale: string) => {
      const { min, max } = current.scales.x ?? {};
      if (scale !== "x" || min == null || max == null || (min === shownFrom && max === shownTo)) return;
      [shownFrom, shownTo] = [min, max];
      if (began.current !== null) return; // the data are new, and fit
      queueMicrotask(() => plot.current === current && fill(current)); // more detail of what is zoomed into
    };
    const onDraw = () => {
      if (began.current !== null) performance.measure("chart", { start: began.current, detail: present.title });
      began.current = null;
    };
    const fill = (current: uPlot) => {
      began.current = performance.now();
      current.setData(data({ ...latest.current, ...rangeOf(current) }), false);
      current.redraw();
    };
    const made = new uPlot(options({ ...present, onScale, onDraw }), data(present), place.current);
    plot.current = made;
    drawn.current = present.curves;
    return () => {
      plot.current = null;
      made.destroy();
    };
    // The data follow below without a new plot.
  }, [look, hasWidth]);

  useEffect(() => {
    if (plot.current !== null && width > 0) plot.current.setSize({ width, height });
  }, [width, height]);

  useEffect(() => {
    const current = plot.current;
    if (current === null || drawn.current === curves) return;
    drawn.current = curves;
    began.current = performance.now();
    const isZoomed = isPartOf(current);
    current.setData(data({ curves, width, logarithmic, ...(isZoomed ? rangeOf(current) : {}) }), !isZoomed);
    if (isZoomed) current.redraw();
  }, [curves, width, logarithmic]);

  return (
    <Box ref={sizeRef}>
      <div ref={place} />
    </Box>
  );
}

function data({
  curves,
  width,
  logarithmic,
  from,
  to,
}: {
  curves: Curve[];
  width: number;
  logarithmic: boolean;
  from?: number;
  to?: number;
}): uPlot.AlignedData {
  const view = {
    from: from ?? Math.min(...curves.map((curve) => curve.x[0] ?? Infinity)),
    to: to ?? Math.max(...curves.map((curve) => curve.x[curve.x.length - 1] ?? -Infinity)),
    columns: Math.max(100, Math.ceil(width / PIXELS)),
    positive: logarithmic,
  };
  return align(curves.map((curve) => reduce(curve, view))) as unknown as uPlot.AlignedData;
}

function rangeOf(plot: uPlot): { from?: number; to?: number } {
  const { min, max } = plot.scales.x ?? {};
  return min == null || max == null ? {} : { from: min, to: max };
}

function isPartOf(plot: uPlot): boolean {
  const x = plot.data[0];
  const { from, to } = rangeOf(plot);
  return x.length > 0 && from !== undefined && to !== undefined && (from > x[0]! || to < x[x.length - 1]!);
}
