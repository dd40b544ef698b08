/** The editor of a spec, with what is wrong with it, and its plan beside it. */
import { Box, Grid, Stack } from "@mantine/core";
import { useMemo, useRef, useState } from "react";
import { holds } from "../../app/scopes";
import { useMe } from "../../app/Shell";
import { PLACEHOLDERS } from "./document/edit";
import { parse } from "./document/parse";
import { writeDraft } from "./draft";
import type { EditorHandle } from "./editor/SpecEditor";
import { EditorPane } from "./EditorPane";
import { Placeholders } from "./Placeholders";
import { mistakesOf } from "./plan/mistakes";
import { PlanPanel } from "./plan/PlanPanel";
import { usePlan } from "./plan/usePlan";
import { Toolbar } from "./Toolbar";
import { useKnowledge } from "./useKnowledge";
import { useSubmit } from "./useSubmit";

export function Workbench({ source, original, initial }: { source: string; original: string; initial: string }) {
  const [text, setText] = useState(initial);
  const editor = useRef<EditorHandle>(null);
  const knowledge = useKnowledge();
  const parsed = useMemo(() => parse(text), [text]);
  const spec = useMemo(() => (parsed.value === undefined ? null : JSON.stringify(parsed.value)), [parsed]);
  const me = useMe().data;
  const mayWrite = me === undefined || holds(me, "write");
  const planned = usePlan(mayWrite ? spec : null);
  const mistakes = useMemo(
    () => mistakesOf(text, parsed, knowledge.schema, planned.error),
    [text, parsed, knowledge.schema, planned.error],
  );
  const submission = useSubmit(source);

  const change = (changed: string) => {
    setText(changed);
    writeDraft(source, changed === original ? null : changed);
  };
  const replace = (changed: string) => (editor.current === null ? change(changed) : editor.current.replace(changed));
  const submit = () => {
    if (spec !== null && mayWrite && !submission.isPending) submission.mutate(spec);
  };
  return (
    <Stack gap="sm">
      <Toolbar
        text={text}
        isChanged={text !== original}
        onReplace={replace}
        onReset={() => replace(original)}
        onSubmit={submit}
        canSubmit={spec !== null}
        mayWrite={mayWrite}
        isSubmitting={submission.isPending}
      />
      <Placeholders places={PLACEHOLDERS.filter((place) => text.includes(place.text))} text={text} onReplace={replace} />
      <Grid gap="md">
        <Grid.Col span={{ base: 12, md: 7 }}>
          <EditorPane
            editor={editor}
            label="Job spec"
            text={text}
            onChange={change}
            onReplace={replace}
            onSubmit={submit}
            mistakes={mistakes}
            knowledge={knowledge}
          />
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 5 }}>
          <Box pos="sticky" top={64}>
            <PlanPanel planned={planned} mayWrite={mayWrite} hasMistakes={mistakes.length > 0} />
          </Box>
        </Grid.Col>
      </Grid>
    </Stack>
  );
}
