/** The editor of a request, with what is wrong with it, and what the search would do beside it. */
import { Box, Grid, Stack } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useRef, useState } from "react";
import { holds } from "../../../app/scopes";
import { useMe } from "../../../app/Shell";
import { done } from "../../../ui/notify";
import { PLACEHOLDERS } from "../../newjob/document/edit";
import { parse } from "../../newjob/document/parse";
import { writeDraft } from "../../newjob/draft";
import type { EditorHandle } from "../../newjob/editor/SpecEditor";
import { EditorPane } from "../../newjob/EditorPane";
import { Placeholders } from "../../newjob/Placeholders";
import { mistakesOf } from "../../newjob/plan/mistakes";
import { usePlan } from "../../newjob/plan/usePlan";
import { useKnowledge } from "../../newjob/useKnowledge";
import { usePost } from "../../newjob/usePost";
import { SEARCHES, type Search, type SearchPlan } from "../requests";
import { SearchPlanPanel } from "./SearchPlanPanel";
import { Toolbar } from "./Toolbar";

const PATH = "/v1/searches";

export function Workbench({ source, original, initial }: { source: string; original: string; initial: string }) {
  const [text, setText] = useState(initial);
  const editor = useRef<EditorHandle>(null);
  const knowledge = useKnowledge("SearchPost");
  const parsed = useMemo(() => parse(text), [text]);
  const request = useMemo(() => (parsed.value === undefined ? null : JSON.stringify(parsed.value)), [parsed]);
  const me = useMe().data;
  const mayWrite = me === undefined || holds(me, "write");
  const planned = usePlan<SearchPlan>(mayWrite ? request : null, PATH);
  const mistakes = useMemo(
    () => mistakesOf(text, parsed, knowledge.schema, planned.error),
    [text, parsed, knowledge.schema, planned.error],
  );
  const submission = useCreation(source);

  const change = (changed: string) => {
    setText(changed);
    writeDraft(source, changed === original ? null : changed);
  };
  const replace = (changed: string) => (editor.current === null ? change(changed) : editor.current.replace(changed));
  const submit = () => {
    if (request !== null && mayWrite && !submission.isPending) submission.mutate(request);
  };
  return (
    <Stack gap="sm">
      <Toolbar
        isChanged={text !== original}
        onReset={() => replace(original)}
        onSubmit={submit}
        canSubmit={request !== null}
        mayWrite={mayWrite}
        isSubmitting={submission.isPending}
      />
      <Placeholders places={PLACEHOLDERS.filter((place) => text.includes(place.text))} text={text} onReplace={replace} />
      <Grid gap="md">
        <Grid.Col span={{ base: 12, md: 7 }}>
          <EditorPane
            editor={editor}
            label="Search request"
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
            <SearchPlanPanel planned={planned} mayWrite={mayWrite} hasMistakes={mistakes.length > 0} />
          </Box>
        </Grid.Col>
      </Grid>
    </Stack>
  );
}

function useCreation(source: string) {
  const navigate = useNavigate();
  const client = useQueryClient();
  return usePost<Search>(PATH, source, (search) => {
    done(`Search ${search.name} begins`);
    void client.invalidateQueries({ queryKey: [...SEARCHES, "list"] });
    void navigate({ to: "/searches/$searchId", params: { searchId: search.id } });
  });
}
