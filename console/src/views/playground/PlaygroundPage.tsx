import { Group, Stack, Tabs } from "@mantine/core";
import { useCallback } from "react";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Answer, Empty } from "../../ui/states";
import { ClassifyMode } from "./classify/ClassifyMode";
import { DeploymentChoice } from "./DeploymentChoice";
import { useDeployments, type Deployment } from "./queries";
import { SearchMode } from "./search/SearchMode";
import { useImages } from "./useImages";
import { useView } from "./view";

export default function PlaygroundPage() {
  const deployments = useDeployments();
  return (
    <Page title="Playground" subtitle="Classify images and search indexes with what is deployed">
      <Answer of={deployments}>{(found) => (found.length === 0 ? <NoDeployment /> : <Playground deployments={found} />)}</Answer>
    </Page>
  );
}

function NoDeployment() {
  return (
    <Empty
      title="Nothing is deployed"
      action={
        <Group gap="xs">
          <ButtonLink to="/models">Deploy a model</ButtonLink>
          <ButtonLink to="/new-job" variant="default">
            Train a model
          </ButtonLink>
        </Group>
      }
    >
      A deployment answers queries with a model of the registry. Open a model and deploy one of its versions, or train a first one with a new job.
    </Empty>
  );
}

function Playground({ deployments }: { deployments: Deployment[] }) {
  const [view, set] = useView();
  const first = view.deployment ?? (deployments.find((each) => each.state === "ready") ?? deployments[0]!).name;
  const { mode = "classify", second } = view;
  const images = useImages();
  const onSearchImage = useCallback(() => set({ item: undefined, query: undefined }), [set]);
  const searchImage = useImages(1, onSearchImage);
  const names = second === undefined || second === first ? [first] : [first, second];
  return (
    <Stack>
      <DeploymentChoice deployments={deployments} first={first} second={second} onFirst={(name) => set({ deployment: name, labelSet: undefined })} onSecond={(name) => set({ second: name, secondIndex: undefined })} />
      <Tabs value={mode} keepMounted={false} onChange={(next) => set({ mode: next === "search" ? "search" : undefined }, { replace: false })}>
        <Tabs.List mb="md">
          <Tabs.Tab value="classify">Classify</Tabs.Tab>
          <Tabs.Tab value="search">Search</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="classify">
          <ClassifyMode deployments={names} images={images} />
        </Tabs.Panel>
        <Tabs.Panel value="search">
          <SearchMode deployments={names} all={deployments} image={searchImage} onClassify={(file) => {
              images.add([file]);
              set({ mode: undefined }, { replace: false });
            }}
          />
        </Tabs.Panel>
      </Tabs>
    </Stack>
  );
}
