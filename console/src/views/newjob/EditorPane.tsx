/** The editor with its keys explained, and what is wrong with the text below it. */
import { Paper, Skeleton, Text } from "@mantine/core";
import { lazy, Suspense, type RefObject } from "react";
import type { Knowledge } from "./editor/assist";
import type { EditorHandle } from "./editor/SpecEditor";
import { FileDrop } from "./FileDrop";
import { MistakeList } from "./MistakeList";
import type { ListedMistake } from "./plan/mistakes";

const SpecEditor = lazy(() => import("./editor/SpecEditor"));
const KEYS = "editor-keys";

interface Props {
  editor: RefObject<EditorHandle | null>;
  /** What the text is, for screen readers. */
  label: string;
  text: string;
  onChange: (text: string) => void;
  onReplace: (text: string) => void;
  onSubmit: () => void;
  mistakes: ListedMistake[];
  knowledge: Knowledge;
}

export function EditorPane({ editor, label, text, onChange, onReplace, onSubmit, mistakes, knowledge }: Props) {
  return (
    <>
      <FileDrop onText={onReplace}>
        <Paper withBorder h="clamp(320px, calc(100vh - 330px), 900px)" style={{ overflow: "hidden" }}>
          <Suspense fallback={<Skeleton h="100%" />}>
            <SpecEditor
              ref={editor}
              label={label}
              initialText={text}
              onChange={onChange}
              onSubmit={onSubmit}
              mistakes={mistakes}
              knowledge={knowledge}
              describedBy={KEYS}
            />
          </Suspense>
        </Paper>
      </FileDrop>
      <Text id={KEYS} size="xs" c="dimmed" mt={4}>
        Ctrl+Space completes, Ctrl+Enter submits, Ctrl+Z takes back (on a Mac, Cmd for the last two). Tab indents: to leave the
        editor press Escape, then Tab. Drop a YAML or JSON file to load it.
      </Text>
      <MistakeList mistakes={mistakes} text={text} onJump={(mistake) => editor.current?.jump(mistake)} />
    </>
  );
}
