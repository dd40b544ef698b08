/** A model and one of its versions: facts, evaluation, what was pruned, where it comes from, files. */
import { Badge, Group, Select, Tabs } from "@mantine/core";
import type { Schemas } from "../../api/client";
import { ago, dateTime } from "../../app/format";
import { visible } from "../../app/labels";
import { modelRoute } from "../../app/router";
import { Page } from "../../ui/Page";
import { Answer } from "../../ui/states";
import { CompareMenu } from "./CompareMenu";
import { DeployButton } from "./DeployDialog";
import { EvaluationTab } from "./EvaluationTab";
import { FilesTab } from "./FilesTab";
import { LayoutTab } from "./LayoutTab";
import { LineageTab } from "./LineageTab";
import { OverviewTab } from "./OverviewTab";
import { useModel, useVersion } from "./queries";

type Model = Schemas["Model"];
type Version = Schemas["ModelVersion"];

const TABS = [
  { value: "overview", label: "Overview", show: OverviewTab },
  { value: "evaluation", label: "Evaluation", show: EvaluationTab },
  { value: "layout", label: "Layout", show: LayoutTab },
  { value: "lineage", label: "Lineage", show: LineageTab },
  { value: "files", label: "Files", show: FilesTab },
];

export default function ModelPage() {
  const { name } = modelRoute.useParams();
  const { version = "latest" } = modelRoute.useSearch();
  const model = useModel(name);
  const shown = useVersion(name, version);
  return (
    <Page
      title={visible(name)}
      subtitle={<Subtitle version={shown.data} />}
      actions={model.data !== undefined && <Actions model={model.data} version={shown.data} />}
    >
      <Answer of={model}>
        {(known) => <Answer of={shown}>{(found) => <VersionTabs model={known} version={found} />}</Answer>}
      </Answer>
    </Page>
  );
}

function Actions({ model, version }: { model: Model; version: Version | undefined }) {
  return (
    <>
      <VersionChoice model={model} shown={version} />
      {version !== undefined && <CompareMenu model={model} version={version} />}
      {version !== undefined && <DeployButton version={version} />}
    </>
  );
}

function Subtitle({ version }: { version: Version | undefined }) {
  if (version === undefined) return <>Model</>;
  return (
    <Group gap="xs" component="span">
      <span title={dateTime(version.created_at)}>
        Version {version.version}, {ago(version.created_at)}
      </span>
      {version.aliases.map((alias) => (
        <Badge key={alias} variant="default" radius="sm" tt="none" fw={500}>
          {visible(alias)}
        </Badge>
      ))}
    </Group>
  );
}

function VersionChoice({ model, shown }: { model: Model; shown: Version | undefined }) {
  const navigate = modelRoute.useNavigate();
  const aliases = (version: number) =>
    Object.entries(model.aliases)
      .filter(([, at]) => at === version)
      .map(([alias]) => visible(alias));
  const data = [...model.versions].reverse().map((version) => ({
    value: String(version),
    label: [`Version ${version}`, ...aliases(version), ...(version === model.latest ? ["latest"] : [])].join(" · "),
  }));
  return (
    <Select
      aria-label="Version"
      data={data}
      value={shown === undefined ? null : String(shown.version)}
      onChange={(value) => value !== null && void navigate({ search: (before) => ({ ...before, version: value }) })}
      allowDeselect={false}
      searchable={data.length > 10}
      w={200}
    />
  );
}

function VersionTabs({ model, version }: { model: Model; version: Version }) {
  const { tab } = modelRoute.useSearch();
  const navigate = modelRoute.useNavigate();
  const shown = TABS.find((each) => each.value === tab)?.value ?? "overview";
  return (
    <Tabs
      value={shown}
      onChange={(value) =>
        void navigate({ search: (before) => ({ ...before, tab: value ?? undefined }), replace: true, resetScroll: false })
      }
      keepMounted={false}
    >
      <Tabs.List mb="md">
        {TABS.map(({ value, label }) => (
          <Tabs.Tab key={value} value={value}>
            {label}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {TABS.map(({ value, show: Show }) => (
        <Tabs.Panel key={value} value={value}>
          <Show model={model} version={version} />
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
