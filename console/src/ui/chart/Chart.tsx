/** Curves over steps, drawn by uPlot: zoom by dragging, a double click shows all again. */
import "uplot/dist/uPlot.min.css";
import { Box, useComputedColorScheme } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { significant } from "../../app/format";
import { align, type Curve } from "./align";

interface Props {
  /** What the curves show, for screen readers too. */
  title: string;
  curves: Curve[];
  height?: number;
  xLabel?: string;
  logarithmic?: boolean;
  /** Format of the values; three significant digits by default. */
  format?: (value: number) => string;
  /** Charts of one group show the cursor at the same step. */
  group?: string;
}

export function Chart({ title, curves, height = 220, xLabel = "step", logarithmic = false, format = significant, group }: Props) {
  const { ref: sizeRef, width } = useElementSize();
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const scheme = useComputedColorScheme("light");
  const shape = JSON.stringify([curves.map(({ label, color, dash, points }) => [label, color, dash, points]), scheme, logarithmic, xLabel, group, height]);

  useEffect(() => {
    if (place.current === null || width === 0) return;
    const made = new uPlot(options({ curves, height, width, xLabel, logarithmic, format, group, isDark: scheme === "dark" }), align(curves) as uPlot.AlignedData, place.current);
    plot.current = made;
    return () => {
      made.destroy();
      plot.current = null;
    };
    // The data follow below without a new plot.
  }, [shape, width === 0]);

  useEffect(() => {
    if (plot.current !== null && width > 0) plot.current.setSize({ width, height });
  }, [width, height]);

  useEffect(() => {
    const current = plot.current;
    if (current === null) return;
    const began = performance.now();
    const isZoomed = isPartOf(current);
    current.setData(align(curves) as uPlot.AlignedData, !isZoomed);
    if (isZoomed) current.redraw();
    performance.measure("chart", { start: began, detail: title });
  }, [curves]);

  return (
    <Box ref={sizeRef} role="img" aria-label={summary(title, curves, format)} style={{ minHeight: height }}>
      <div ref={place} />
    </Box>
  );
}

/** Return what a screen reader reads: the newest value of each curve. */
export function summary(title: string, curves: Curve[], format: (value: number) => string = significant): string {
  const parts = curves.map((curve) => {
    const last = curve.y.findLast((value) => value !== null);
    return last == null ? `${curve.label}: no points` : `${curve.label}: ${format(last)} at ${curve.x.at(-1)}`;
  });
  return `${title}. ${parts.join("; ")}`;
}

function isPartOf(plot: uPlot): boolean {
  const x = plot.data[0];
  const scale = plot.scales.x;
  return x.length > 0 && scale?.min != null && scale.max != null && (scale.min > x[0]! || scale.max < x[x.length - 1]!);
}

interface Look extends Required<Pick<Props, "curves" | "height" | "xLabel" | "logarithmic" | "format">> {
  width: number;
  isDark: boolean;
  group: string | undefined;
}

function options({ curves, height, width, xLabel, logarithmic, format, group, isDark }: Look): uPlot.Options {
  const ink = isDark ? "#c9c9c9" : "#343a40";
  const lines = isDark ? "#3b3b3b" : "#e9ecef";
  const axis = { stroke: ink, grid: { stroke: lines, width: 1 }, ticks: { stroke: lines, width: 1 } };
  return {
    width,
    height,
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    cursor: { drag: { x: true, y: false }, ...(group === undefined ? {} : { sync: { key: group } }) },
    axes: [
      { ...axis, label: xLabel, labelSize: 20, size: 34, values: (_, ticks) => ticks.map((tick) => significant(tick, 6)) },
      { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : format(tick))) },
    ],
    series: [
      { label: xLabel },
      ...curves.map((curve) => ({
        label: curve.label,
        stroke: curve.color,
        width: 1.6,
        ...(curve.dash === undefined ? {} : { dash: curve.dash }),
        points: { show: curve.points ?? false, size: 6 },
        value: (_: uPlot, value: number | null) => (value == null ? "–" : format(value)),
        spanGaps: false,
      })),
    ],
  };
}
