import { Alert, Group, Stack, Tabs } from "@mantine/core";
import { IconHourglass } from "@tabler/icons-react";
import { useCallback } from "react";
import { visible } from "../../app/labels";
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
      A deployment answers queries with a model of the registry. Open a model and deploy one of its versions, or train a first one
      with a new job.
    </Empty>
  );
}

function Playground({ deployments }: { deployments: Deployment[] }) {
  const [view, set] = useView();
  const answering = deployments.filter((each) => each.actions.includes("query"));
  const first = view.deployment ?? (answering[0] ?? deployments[0]!).name;
  const chosen = deployments.find((each) => each.name === first);
  return (
    <Stack>
      <DeploymentChoice
        deployments={deployments}
        first={first}
        second={view.second}
        onFirst={(name) => set({ deployment: name, labelSet: undefined, ...(name === view.second ? { second: undefined } : {}) })}
        onSecond={(name) => set({ second: name, secondIndex: undefined })}
      />
      {chosen !== undefined && !answering.includes(chosen) ? (
        <NotAnswering deployment={chosen} />
      ) : (
        <Modes
          deployments={deployments}
          names={[first, ...answering.map((each) => each.name).filter((name) => name === view.second && name !== first)]}
        />
      )}
    </Stack>
  );
}

function NotAnswering({ deployment }: { deployment: Deployment }) {
  const isReady = deployment.state === "ready";
  const reason = visible([deployment.state, deployment.message].filter((part) => part !== "").join(": "));
  return (
    <Alert
      color="blue"
      variant="light"
      icon={<IconHourglass />}
      title={isReady ? "Your token may not ask this deployment" : `${deployment.name} does not answer yet`}
      role="status"
    >
      {isReady
        ? "Queries need a token of the scope infer."
        : `It is ${reason}. This page goes on by itself as soon as it answers.`}
    </Alert>
  );
}

/** The two modes; their images stay when the mode changes. `names`: one or two deployments that are asked. */
function Modes({ deployments, names }: { deployments: Deployment[]; names: string[] }) {
  const [{ mode = "classify" }, set] = useView();
  const images = useImages();
  const onSearchImage = useCallback(() => set({ item: undefined, query: undefined }), [set]);
  const searchImage = useImages(1, onSearchImage);
  const onClassify = (file: File) => {
    images.add([file]);
    set({ mode: undefined }, { replace: false });
  };
  return (
    <Tabs
      value={mode}
      keepMounted={false}
      onChange={(next) => set({ mode: next === "search" ? "search" : undefined }, { replace: false })}
    >
      <Tabs.List mb="md">
        <Tabs.Tab value="classify">Classify</Tabs.Tab>
        <Tabs.Tab value="search">Search</Tabs.Tab>
      </Tabs.List>
      <Tabs.Panel value="classify">
        <ClassifyMode deployments={names} images={images} />
      </Tabs.Panel>
      <Tabs.Panel value="search">
        <SearchMode deployments={names} all={deployments} image={searchImage} onClassify={onClassify} />
      </Tabs.Panel>
    </Tabs>
  );
}
