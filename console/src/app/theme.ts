import { createTheme } from "@mantine/core";

/** The head of a dialog is a <header>, which would be a second banner of the page. */
const DIALOG = { attributes: { header: { role: "none" } }, closeButtonProps: { "aria-label": "Close" } };

/** One visual language for all views; colours have the contrast of WCAG AA in light and dark. */
export const theme = createTheme({
  primaryColor: "cyan",
  primaryShade: { light: 9, dark: 9 },
  autoContrast: true,
  defaultRadius: "md",
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
  fontFamilyMonospace: "ui-monospace, 'SF Mono', 'Cascadia Mono', Menlo, Consolas, monospace",
  cursorType: "pointer",
  components: {
    Table: { defaultProps: { verticalSpacing: 6, horizontalSpacing: "sm" } },
    Tooltip: { defaultProps: { withArrow: true, openDelay: 300 } },
    Modal: { defaultProps: DIALOG },
    Drawer: { defaultProps: DIALOG },
    Alert: { defaultProps: { variant: "light" } },
    Anchor: { defaultProps: { underline: "hover" } },
  },
});

/** Colours of series and models in the order in which they are used: distinct also for the colour-blind (Okabe-Ito). */
export const SERIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a6bbf", "#999933"];

/** The colour of a state of any resource. */
export function stateColor(state: string): string {
  if (["succeeded", "ready", "ok", "active", "running", "alive"].includes(state)) return state === "running" ? "blue" : "green";
  if (["failed", "unhealthy", "expired", "revoked", "dead"].includes(state)) return "red";
  if (["cancelled", "paused", "deleting", "pausing", "cancelling", "degraded", "stopped"].includes(state)) return "orange";
  if (["starting", "evaluating", "deploying", "updating", "building", "registering"].includes(state)) return "blue";
  return "gray";
}
