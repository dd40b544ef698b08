/** The text editor of a spec: YAML with completion, help and mistakes at their lines. A chunk of its own: CodeMirror is large. */
import { autocompletion, completionStatus } from "@codemirror/autocomplete";
import { yaml } from "@codemirror/lang-yaml";
import { indentUnit } from "@codemirror/language";
import { lintGutter, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { basicSetup } from "codemirror";
import { useEffect, useImperativeHandle, useRef, type Ref } from "react";
import type { Mistake, Place } from "../document/parse";
import { completionSource, fieldHelp, type Knowledge } from "./assist";
import { indentKeys } from "./indent";
import { theme } from "./theme";

export interface EditorHandle {
  /** Select a place, and move the focus there. */
  jump: (place: Place) => void;
  /** Replace the text as one change, which undo takes back. */
  replace: (text: string) => void;
}

interface Props {
  ref?: Ref<EditorHandle>;
  /** The text that it starts with; afterwards the editor owns it. */
  initialText: string;
  onChange: (text: string) => void;
  onSubmit: () => void;
  mistakes: Mistake[];
  knowledge: Knowledge;
  /** What the text is, for screen readers. */
  label?: string;
  /** Id of the element that explains the keys. */
  describedBy: string;
}

export default function SpecEditor({ ref, label = "Job spec", describedBy, initialText, mistakes, ...rest }: Props) {
  const { onChange, onSubmit, knowledge } = rest;
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const first = useRef(initialText);
  const latest = useRef({ onChange, onSubmit, knowledge });
  latest.current = { onChange, onSubmit, knowledge };

  useEffect(() => {
    const made = new EditorView({
      parent: place.current!,
      state: EditorState.create({ doc: first.current, extensions: extensions(latest, label, describedBy) }),
    });
    view.current = made;
    return () => made.destroy();
  }, [label, describedBy]);

  useEffect(() => {
    const current = view.current!;
    current.dispatch(
      setDiagnostics(
        current.state,
        mistakes.map((mistake) => diagnostic(mistake, current.state.doc.length)),
      ),
    );
  }, [mistakes, label, describedBy]);

  useImperativeHandle(
    ref,
    () => ({
      jump: ({ from, to }) => jump(view.current!, from, to),
      replace: (text) => replace(view.current!, text),
    }),
    [],
  );
  return <div ref={place} style={{ height: "100%", overflow: "hidden" }} />;
}

function extensions(latest: { current: Pick<Props, "onChange" | "onSubmit" | "knowledge"> }, label: string, describedBy: string) {
  const knowledge = () => latest.current.knowledge;
  const submit = () => {
    latest.current.onSubmit();
    return true;
  };
  return [
    Prec.highest(keymap.of([{ key: "Mod-Enter", run: submit }])),
    basicSetup,
    keymap.of(indentKeys),
    yaml(),
    indentUnit.of("  "),
    lintGutter(),
    autocompletion({ override: [completionSource(knowledge)], icons: false }),
    fieldHelp(knowledge),
    theme,
    EditorView.contentAttributes.of({
      "aria-label": label,
      "aria-describedby": describedBy,
      spellcheck: "false",
      tabindex: "0",
    }),
    EditorView.updateListener.of((update) => {
      if (update.docChanged) latest.current.onChange(update.state.doc.toString());
      if (completionStatus(update.state) === "active") requestAnimationFrame(() => makeListReachable(update.view));
    }),
  ];
}

/** A list that scrolls has to be reachable with the keyboard. */
function makeListReachable(view: EditorView): void {
  view.dom.querySelector(".cm-tooltip-autocomplete > ul")?.setAttribute("tabindex", "0");
}

function replace(view: EditorView, text: string): void {
  view.dispatch({
    changes: { from: 0, to: view.state.doc.length, insert: text },
    selection: { anchor: 0 },
    scrollIntoView: true,
  });
}

function diagnostic({ from, to, message, severity }: Mistake, length: number): Diagnostic {
  return { from: Math.min(from, length), to: Math.min(to, length), message, severity };
}

function jump(view: EditorView, from: number, to: number): void {
  const end = Math.min(to, view.state.doc.length);
  view.dispatch({
    selection: { anchor: Math.min(from, end), head: end },
    effects: EditorView.scrollIntoView(Math.min(from, end), { y: "center" }),
  });
  view.focus();
}
