/** The registry: what its models cost and achieve, and all of them in a table. */
import { Group, Stack, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconSearch } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import type { Schemas } from "../../api/client";
import { modelsRoute } from "../../app/router";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Answer, Empty } from "../../ui/states";
import { search } from "./choose";
import { CompareButton } from "./CompareButton";
import { ModelsTable } from "./ModelsTable";
import { useModels } from "./queries";
import { TradeOff } from "./TradeOff";

export default function ModelsPage() {
  const models = useModels();
  return (
    <Page title="Models" subtitle="Students that jobs have made, and imported models">
      <Answer of={models}>{(all) => (all.length === 0 ? <NoModels /> : <Registry all={all} />)}</Answer>
    </Page>
  );
}

function NoModels() {
  return (
    <Empty title="No models yet" action={<ButtonLink to="/new-job">Start a job</ButtonLink>}>
      A job's student is registered here when the job has succeeded. <code>tinyclip-client models import</code> adds a model from
      a file.
    </Empty>
  );
}

function Registry({ all }: { all: Schemas["Model"][] }) {
  const { search: text } = modelsRoute.useSearch();
  const [selected, setSelected] = useState<string[]>([]);
  const found = useMemo(() => search(all, text), [all, text]);
  const toggle = (reference: string) =>
    setSelected((before) => (before.includes(reference) ? before.filter((each) => each !== reference) : [...before, reference]));
  return (
    <Stack>
      <Group justify="space-between" align="flex-end">
        <SearchField />
        <Group gap="xs">
          <Text size="sm" role="status">
            {selected.length === 0 ? "Select versions to compare them" : `${selected.length} selected`}
          </Text>
          <CompareButton models={selected} />
        </Group>
      </Group>
      {found.length === 0 ? (
        <Empty title="No model matches">Change the search, or clear it.</Empty>
      ) : (
        <>
          <TradeOff models={found} selected={selected} onToggle={toggle} />
          <ModelsTable models={found} selected={selected} onToggle={toggle} />
        </>
      )}
    </Stack>
  );
}

function SearchField() {
  const { search: text } = modelsRoute.useSearch();
  const navigate = modelsRoute.useNavigate();
  const [typed, setTyped] = useState(text ?? "");
  const apply = useDebouncedCallback(
    (value: string) => void navigate({ search: (before) => ({ ...before, search: value || undefined }), replace: true }),
    200,
  );
  return (
    <TextInput
      label="Search"
      placeholder="Name or alias"
      leftSection={<IconSearch size={16} aria-hidden />}
      value={typed}
      w={260}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        apply(event.currentTarget.value);
      }}
    />
  );
}
