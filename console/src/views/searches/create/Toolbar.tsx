/** What a request starts from, and its submission. */
import { Button, Group, Select, Tooltip } from "@mantine/core";
import { IconRestore, IconSend } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import { newSearchRoute } from "../../../app/router";
import { TEMPLATES } from "./templates";

interface Props {
  isChanged: boolean;
  onReset: () => void;
  onSubmit: () => void;
  canSubmit: boolean;
  mayWrite: boolean;
  isSubmitting: boolean;
}

export function Toolbar({ isChanged, onReset, onSubmit, canSubmit, mayWrite, isSubmitting }: Props) {
  return (
    <Group gap="sm" align="flex-end" justify="space-between">
      <Group gap="sm" align="flex-end">
        <TemplateSelect />
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
          Begin search
        </Button>
      </Tooltip>
    </Group>
  );
}

function TemplateSelect() {
  const { template, from } = newSearchRoute.useSearch();
  const navigate = useNavigate();
  const value = from === undefined ? (TEMPLATES.find(({ name }) => name === template) ?? TEMPLATES[0]!).name : null;
  return (
    <Select
      label="Template"
      description={TEMPLATES.find(({ name }) => name === value)?.description}
      placeholder="A search's request"
      w={330}
      maw="100%"
      data={TEMPLATES.map(({ name, label }) => ({ value: name, label }))}
      value={value}
      allowDeselect={false}
      onChange={(name) => name !== null && void navigate({ to: "/new-search", search: { template: name } })}
    />
  );
}
