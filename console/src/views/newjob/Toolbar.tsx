/** What a spec starts from, what fills it in, and its submission. */
import { Button, Group, Select, Tooltip } from "@mantine/core";
import { IconRestore, IconSend } from "@tabler/icons-react";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { withDataset, withValue } from "./document/edit";
import { parse } from "./document/parse";
import { TEMPLATES } from "./templates";
import { useDatasetNames, useModelNames } from "./useKnowledge";
import { useExamples } from "./useSource";

const route = getRouteApi("/new-job");

interface Props {
  text: string;
  isChanged: boolean;
  onReplace: (text: string) => void;
  onReset: () => void;
  onSubmit: () => void;
  canSubmit: boolean;
  mayWrite: boolean;
  isSubmitting: boolean;
}

export function Toolbar({ text, isChanged, onReplace, onReset, onSubmit, canSubmit, mayWrite, isSubmitting }: Props) {
  return (
    <Group gap="sm" align="flex-end" justify="space-between">
      <Group gap="sm" align="flex-end">
        <TemplateSelect />
        <DatasetSelect text={text} onReplace={onReplace} />
        <TeacherSelect text={text} onReplace={onReplace} />
        <Button variant="default" leftSection={<IconRestore size={16} aria-hidden />} onClick={onReset} disabled={!isChanged}>
          Start over
        </Button>
      </Group>
      <Tooltip label={mayWrite ? "Ctrl+Enter" : "Your token has no scope write"}>
        <Button
          leftSection={<IconSend size={16} aria-hidden />}
          onClick={onSubmit}
          disabled={!canSubmit || !mayWrite}
          loading={isSubmitting}
        >
          Submit job
        </Button>
      </Tooltip>
    </Group>
  );
}

function TemplateSelect() {
  const { template, from, dataset } = route.useSearch();
  const navigate = useNavigate();
  const examples = useExamples().data ?? [];
  const value = from === undefined ? (template ?? TEMPLATES[0]!.name) : null;
  const description =
    TEMPLATES.find(({ name }) => name === value)?.description ?? examples.find(({ name }) => name === value)?.title;
  const groups = [
    { group: "Templates", items: TEMPLATES.map(({ name, label }) => ({ value: name, label })) },
    { group: "Examples on the server", items: examples.map(({ name }) => ({ value: name, label: name.replace(/\.yaml$/, "") })) },
  ];
  return (
    <Select
      label="Template"
      description={description}
      placeholder="A job's spec"
      w={330}
      maw="100%"
      data={groups.filter(({ items }) => items.length > 0)}
      value={value}
      allowDeselect={false}
      onChange={(name) =>
        name !== null &&
        void navigate({ to: "/new-job", search: { template: name, ...(dataset === undefined ? {} : { dataset }) } })
      }
    />
  );
}

interface Edits {
  text: string;
  onReplace: (text: string) => void;
}

/** Registered data sets; choosing one puts it into the spec in place of shards. */
function DatasetSelect({ text, onReplace }: Edits) {
  const names = useDatasetNames().data ?? [];
  if (names.length === 0) return null;
  const current = read(text, ["data", "train", "dataset"])?.split("@")[0] ?? null;
  return (
    <Select
      label="Data set"
      placeholder="Shards"
      w={190}
      searchable
      data={names}
      value={current !== null && names.includes(current) ? current : null}
      onChange={(name) => name !== null && onReplace(withDataset(text, `${name}@latest`))}
    />
  );
}

function TeacherSelect({ text, onReplace }: Edits) {
  const names = useModelNames().data ?? [];
  if (names.length === 0) return null;
  const model = read(text, ["teacher", "model"]) ?? "";
  const current = model.startsWith("registry:") ? model.slice("registry:".length).split("@")[0]! : null;
  return (
    <Select
      label="Teacher"
      placeholder="As in the spec"
      w={190}
      searchable
      data={names}
      value={current !== null && names.includes(current) ? current : null}
      onChange={(name) => name !== null && onReplace(withValue(text, ["teacher", "model"], `registry:${name}@latest`))}
    />
  );
}

function read(text: string, path: string[]): string | null {
  const value: unknown = parse(text).document.getIn(path);
  return typeof value === "string" ? value : null;
}
