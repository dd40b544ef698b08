/** The editor in the console's colours, light and dark. */
import { defaultHighlightStyle, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorView } from "@codemirror/view";

/** CodeMirror's colours for light pages, with more contrast, and their counterparts for dark ones. */
const COLORS: Record<string, string> = {
  "#404740": "light-dark(#404740, #b8c0b8)", // marks
  "#708": "light-dark(#770088, #d9a6e8)", // keywords
  "#219": "light-dark(#1c1c99, #9db8ff)", // atoms
  "#164": "light-dark(#0b5c39, #7fd6a8)", // numbers
  "#a11": "light-dark(#9c1010, #ffab91)", // strings
  "#e40": "light-dark(#b02f00, #ffb07c)", // escapes
  "#00f": "light-dark(#0000cc, #9db8ff)",
  "#30a": "light-dark(#3300aa, #c3b1ff)",
  "#085": "light-dark(#00663f, #7fd6a8)", // types
  "#167": "light-dark(#0e5560, #86d5e0)", // classes
  "#256": "light-dark(#225566, #9ad0e0)",
  "#00c": "light-dark(#0b4f8a, #8ec8f5)", // names of fields
  "#940": "light-dark(#6b5a2f, #b9ab85)", // comments
  "#f00": "light-dark(#b00020, #ff8a80)",
};

const highlight = HighlightStyle.define(
  defaultHighlightStyle.specs.map((spec) =>
    typeof spec.color === "string" ? { ...spec, color: COLORS[spec.color] ?? spec.color, textDecoration: "none" } : spec,
  ),
);

const look = EditorView.theme({
  "&": { backgroundColor: "var(--mantine-color-body)", color: "var(--mantine-color-text)", fontSize: "13px", height: "100%" },
  "&.cm-focused": { outline: "2px solid var(--mantine-primary-color-filled)", outlineOffset: "-1px" },
  ".cm-scroller": { fontFamily: "var(--mantine-font-family-monospace)", lineHeight: "1.55" },
  ".cm-content": { caretColor: "var(--mantine-color-text)", paddingBottom: "40px" },
  ".cm-cursor, .cm-dropCursor": { borderLeftColor: "var(--mantine-color-text)" },
  ".cm-gutters": {
    backgroundColor: "light-dark(#f8f9fa, #1f1f1f)",
    color: "light-dark(#5c636a, #a6a7ab)",
    border: "none",
    borderRight: "1px solid var(--mantine-color-default-border)",
  },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "light-dark(rgba(0, 0, 0, 0.04), rgba(255, 255, 255, 0.05))" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground, .cm-content ::selection": {
    backgroundColor: "light-dark(#cfe8ef, #27505c)",
  },
  ".cm-tooltip": {
    backgroundColor: "var(--mantine-color-body)",
    color: "var(--mantine-color-text)",
    border: "1px solid var(--mantine-color-default-border)",
    borderRadius: "var(--mantine-radius-sm)",
    boxShadow: "var(--mantine-shadow-md)",
  },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]": {
    backgroundColor: "var(--mantine-primary-color-filled)",
    color: "white",
  },
  ".cm-completionDetail": { fontStyle: "normal", opacity: "1", fontSize: "12px" },
  ".cm-field-help": {
    padding: "6px 10px",
    maxWidth: "440px",
    fontFamily: "var(--mantine-font-family)",
    fontSize: "13px",
    whiteSpace: "pre-wrap",
  },
  ".cm-field-help-type": { fontFamily: "var(--mantine-font-family-monospace)", fontSize: "12px", marginBottom: "4px" },
  ".cm-diagnostic": { overflowWrap: "anywhere", maxWidth: "520px" },
  ".cm-panels": { backgroundColor: "light-dark(#f8f9fa, #1f1f1f)", color: "var(--mantine-color-text)" },
  ".cm-completionInfo": { whiteSpace: "normal" },
});

export const theme = [look, syntaxHighlighting(highlight)];
