import { ActionIcon, Group, Menu, Select, Stack, Tabs } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconDots, IconRefresh, IconTrash } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { datasetRoute } from "../../app/router";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Answer, Empty } from "../../ui/states";
import { DatasetFailure } from "./DatasetFailure";
import { State } from "./DatasetTable";
import { DeleteDataset } from "./DeleteDataset";
import { useDataset, useVersion, type Dataset, type DatasetVersion } from "./queries";
import { RegisterModal } from "./register/RegisterModal";
import { ReinforcementsTab } from "./reinforcements/ReinforcementsTab";
import { ReportTab } from "./report/ReportTab";
import { SamplesTab } from "./samples/SamplesTab";
import { readUse } from "./samples/uses";
import { Summary } from "./Summary";
import { VersionsTab } from "./versions/VersionsTab";

export default function DatasetPage() {
  const { name } = datasetRoute.useParams();
  const dataset = useDataset(name);
  if (dataset.data === undefined) {
    return (
      <Page title={name}>
        <Answer of={dataset}>{() => null}</Answer>
      </Page>
    );
  }
  return <Loaded dataset={dataset.data} />;
}

function Loaded({ dataset }: { dataset: Dataset }) {
  const { version: wanted = "latest" } = datasetRoute.useSearch();
  const version = useVersion(dataset.name, wanted, dataset.latest);
  return (
    <Page
      title={dataset.name}
      subtitle={dataset.state !== "ready" && <State dataset={{ ...dataset, error: null }} />}
      actions={<Actions dataset={dataset} version={version.data} />}
    >
      <DatasetFailure error={dataset.error ?? null} />
      {dataset.latest == null ? (
        <Empty title={dataset.state === "registering" ? "The shards are being read" : "There is no version"}>
          {dataset.state === "registering"
            ? "The report is shown as soon as all of them are read."
            : "Correct what the error names, and read the data set again."}
        </Empty>
      ) : (
        <Answer of={version}>{(found) => <Views dataset={dataset} version={found} />}</Answer>
      )}
    </Page>
  );
}

function Views({ dataset, version }: { dataset: Dataset; version: DatasetVersion }) {
  const { tab = "report", use } = datasetRoute.useSearch();
  const navigate = useNavigate({ from: datasetRoute.fullPath });
  return (
    <Stack>
      <Summary version={version} />
      <Tabs
        value={tab}
        keepMounted={false}
        onChange={(next) =>
          void navigate({ search: (before) => ({ ...before, tab: next === "report" ? undefined : (next ?? undefined) }) })
        }
      >
        <Tabs.List mb="md">
          <Tabs.Tab value="report">Report</Tabs.Tab>
          <Tabs.Tab value="samples">Samples</Tabs.Tab>
          <Tabs.Tab value="reinforcements">Reinforcements</Tabs.Tab>
          <Tabs.Tab value="versions">Versions</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="report">
          <ReportTab version={version} />
        </Tabs.Panel>
        <Tabs.Panel value="samples">
          <SamplesTab
            version={version}
            use={readUse(use)}
            onUse={(next) => void navigate({ search: (before) => ({ ...before, use: next }), replace: true })}
          />
        </Tabs.Panel>
        <Tabs.Panel value="reinforcements">
          <ReinforcementsTab version={version} />
        </Tabs.Panel>
        <Tabs.Panel value="versions">
          <VersionsTab dataset={dataset} />
        </Tabs.Panel>
      </Tabs>
    </Stack>
  );
}

function Actions({ dataset, version }: { dataset: Dataset; version: DatasetVersion | undefined }) {
  const [deleted, setDeleted] = useState<string | null>(null);
  const [isOpen, { open, close }] = useDisclosure();
  const navigate = useNavigate();
  return (
    <Group gap="xs" align="flex-end">
      {version !== undefined && <VersionSelect dataset={dataset} version={version} />}
      {version?.actions.includes("train") && (
        <ButtonLink to="/new-job" search={{ dataset: `${dataset.name}@${version.version}` }}>
          Train on it
        </ButtonLink>
      )}
      {dataset.actions.length > 0 && (
        <Menu position="bottom-end">
          <Menu.Target>
            <ActionIcon variant="default" size={36} aria-label="More actions">
              <IconDots size={18} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item leftSection={<IconRefresh size={16} aria-hidden />} onClick={open}>
              Read again
            </Menu.Item>
            {dataset.actions.includes("delete") && (
              <Menu.Item leftSection={<IconTrash size={16} aria-hidden />} color="red" onClick={() => setDeleted(dataset.name)}>
                Delete
              </Menu.Item>
            )}
          </Menu.Dropdown>
        </Menu>
      )}
      <RegisterModal opened={isOpen} onClose={close} again={dataset} />
      <DeleteDataset name={deleted} onClose={() => setDeleted(null)} onDeleted={() => void navigate({ to: "/datasets" })} />
    </Group>
  );
}

function VersionSelect({ dataset, version }: { dataset: Dataset; version: DatasetVersion }) {
  const navigate = useNavigate({ from: datasetRoute.fullPath });
  const names = (number: number) => [
    ...Object.entries(dataset.aliases)
      .filter(([, at]) => at === number)
      .map(([alias]) => alias),
    ...(number === dataset.latest ? ["latest"] : []),
  ];
  const data = [...dataset.versions]
    .sort((a, b) => b - a)
    .map((number) => ({ value: String(number), label: [`@${number}`, ...names(number)].join(" · ") }));
  return (
    <Select
      aria-label="Version"
      w={180}
      data={data}
      value={String(version.version)}
      allowDeselect={false}
      onChange={(next) =>
        void navigate({
          search: (before) => ({ ...before, version: next === String(dataset.latest) ? undefined : (next ?? undefined) }),
        })
      }
    />
  );
}
