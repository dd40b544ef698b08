/** Tab moves lines by two spaces, as YAML is indented; Escape and then Tab leaves the editor (a part of CodeMirror). */
import type { EditorState, StateCommand, TransactionSpec } from "@codemirror/state";
import type { KeyBinding } from "@codemirror/view";

const STEP = "  ";

const more: StateCommand = ({ state, dispatch }) => {
  const isPoint = state.selection.ranges.every((range) => range.empty);
  if (isPoint) dispatch(state.update(state.replaceSelection(STEP), { userEvent: "input" }));
  else
    dispatch(
      state.update(
        eachLine(state, (from) => ({ from, to: from, insert: STEP })),
        { userEvent: "input.indent" },
      ),
    );
  return true;
};

const less: StateCommand = ({ state, dispatch }) => {
  const changes = eachLine(state, (from, text) => ({
    from,
    to: from + Math.min(STEP.length, text.length - text.trimStart().length),
    insert: "",
  }));
  dispatch(state.update(changes, { userEvent: "delete.dedent" }));
  return true;
};

function eachLine(
  state: EditorState,
  change: (from: number, text: string) => { from: number; to: number; insert: string },
): TransactionSpec {
  const starts = new Set<number>();
  for (const { from, to } of state.selection.ranges) {
    for (let place = from; ;) {
      const line = state.doc.lineAt(place);
      starts.add(line.from);
      if (line.to >= to) break;
      place = line.to + 1;
    }
  }
  return { changes: [...starts].map((start) => change(start, state.doc.lineAt(start).text)) };
}

export const indentKeys: KeyBinding[] = [{ key: "Tab", run: more, shift: less }];
