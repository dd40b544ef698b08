/** Versions side by side: sizes and scores, classes, and the images that one gets right and another wrong. */
import { Stack } from "@mantine/core";
import type { Schemas } from "../../api/client";
import { compareModelsRoute } from "../../app/router";
import { Page } from "../../ui/Page";
import { Answer, Empty } from "../../ui/states";
import { CompareImages } from "./CompareImages";
import { ComparedModels } from "./ComparedModels";
import { CompareTable } from "./CompareTable";
import { useComparison } from "./queries";
import { TEACHER } from "./references";
import { Section } from "./Section";

const NONE: string[] = [];

export default function CompareModelsPage() {
  const { models = NONE } = compareModelsRoute.useSearch();
  const versions = models.filter((model) => model !== TEACHER);
  const compared = useComparison(versions, true);
  return (
    <Page title="Compare models" subtitle="Sizes, scores, classes and single images">
      <Stack>
        <ComparedModels models={models} compared={compared.data} />
        {versions.length === 0 ? (
          <Empty title="Choose the versions to compare">Add them above, or select them in the list of models.</Empty>
        ) : (
          <Answer of={compared}>{(found) => <Found models={models} found={found} />}</Answer>
        )}
      </Stack>
    </Page>
  );
}

function Found({ models, found }: { models: string[]; found: Schemas["ComparedModel"][] }) {
  return (
    <>
      <Section title="Side by side">
        <CompareTable models={found} />
      </Section>
      <CompareImages models={models} found={found} />
    </>
  );
}
