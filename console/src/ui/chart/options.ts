/** How plots look: axes, colours, legend, and lines at the ends of stages. */
import type uPlot from "uplot";
import { significant } from "../../app/format";
import { visible } from "../../app/labels";
import type { Curve } from "./align";
import type { Mark } from "./Chart";

interface Look {
  curves: Curve[];
  height: number;
  width: number;
  xLabel: string;
  logarithmic: boolean;
  format: (value: number) => string;
  group: string | undefined;
  isDark: boolean;
  marks: Mark[];
  onScale: (plot: uPlot, scale: string) => void;
  onDraw: () => void;
}

export function options({
  curves,
  height,
  width,
  xLabel,
  logarithmic,
  format,
  group,
  isDark,
  marks,
  onScale,
  onDraw,
}: Look): uPlot.Options {
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
      {
        ...axis,
        size: 64,
        values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : format === significant ? tickLabel(tick) : format(tick))),
      },
    ],
    series: [
      { label: xLabel, value: (_: uPlot, value: number | null) => (value == null ? "–" : significant(value, 6)) },
      ...curves.map((curve) => line(curve, format, isDark)),
    ],
    hooks: { setScale: [onScale], drawAxes: [(plot) => drawMarks(plot, marks, ink)], draw: [onDraw] },
  };
}

/** Ticks are round numbers, which more digits tell apart. */
function tickLabel(tick: number): string {
  return tick !== 0 && Math.abs(tick) < 1e-3 ? tick.toExponential() : significant(tick, 6);
}

/** The darkest colours of series, for a dark background. */
const ON_DARK: Record<string, string> = { "#0072b2": "#3d9be0", "#d55e00": "#f0803c" };

function line(curve: Curve, format: (value: number) => string, isDark: boolean): uPlot.Series {
  return {
    label: visible(curve.label, 80),
    stroke: (isDark ? ON_DARK[curve.color] : undefined) ?? curve.color,
    width: 1.6,
    ...(curve.dash === undefined ? {} : { dash: curve.dash }),
    points: { show: curve.points ?? false, size: 6 },
    value: (_: uPlot, value: number | null) => (value == null ? "–" : format(value)),
    spanGaps: false,
  };
}

function drawMarks(plot: uPlot, marks: Mark[], ink: string): void {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.strokeStyle = ink;
  ctx.fillStyle = ink;
  ctx.globalAlpha = 0.7;
  ctx.lineWidth = ratio;
  ctx.setLineDash([4 * ratio, 4 * ratio]);
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.x, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(visible(mark.label, 30), x + 4 * ratio, bbox.top + 2 * ratio);
  }
  ctx.restore();
}
