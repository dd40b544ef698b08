import { Badge, Checkbox, Group, Table, Text } from "@mantine/core";
import type { Schemas } from "../../api/client";
import { ago, compact, dateTime } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { VirtualTable } from "./VirtualTable";
import { COMPARE, right } from "../../ui/ScrollTable";

interface Props {
  models: Schemas["Model"][];
  selected: string[];
  onToggle: (reference: string) => void;
}

const NUMBERS = ["Image params", "Text params", "Versions"];
const COLUMNS = [COMPARE, "Name", "Latest", "Aliases", ...NUMBERS.map(right), "Created"];

/** The models, each with its latest version, which the checkbox selects for a comparison. */
export function ModelsTable({ models, selected, onToggle }: Props) {
  return (
    <VirtualTable
      label="Models"
      columns={COLUMNS}
      count={models.length}
      minWidth={860}
      rowKey={(index) => models[index]!.name}
      row={(index) => <Cells model={models[index]!} selected={selected} onToggle={onToggle} />}
    />
  );
}

function Cells({ model, selected, onToggle }: { model: Schemas["Model"] } & Omit<Props, "models">) {
  const reference = `${model.name}@${model.latest}`;
  return (
    <>
      <Table.Td>
        <Checkbox
          size="xs"
          aria-label={`Compare ${reference}`}
          checked={selected.includes(reference)}
          onChange={() => onToggle(reference)}
        />
      </Table.Td>
      <Table.Th scope="row">
        <TextLink inherit to="/models/$name" params={{ name: model.name }} className="user-text">
          {visible(model.name)}
        </TextLink>
      </Table.Th>
      <Table.Td>{model.latest}</Table.Td>
      <Table.Td>
        <Aliases aliases={model.aliases} />
      </Table.Td>
      <Table.Td ta="right">{compact(model.params?.image)}</Table.Td>
      <Table.Td ta="right" title={`${compact(model.params?.text)} with token embedding`}>
        {compact(model.params?.text_without_embedding)}
      </Table.Td>
      <Table.Td ta="right">{model.versions.length}</Table.Td>
      <Table.Td title={dateTime(model.created_at)}>{ago(model.created_at)}</Table.Td>
    </>
  );
}

const SHOWN_ALIASES = 4;

function Aliases({ aliases }: { aliases: Record<string, number> }) {
  const all = Object.entries(aliases);
  return (
    <Group gap={4}>
      {all.slice(0, SHOWN_ALIASES).map(([alias, version]) => (
        <Badge key={alias} variant="default" radius="sm" tt="none" fw={500}>
          {visible(alias)} = {version}
        </Badge>
      ))}
      {all.length > SHOWN_ALIASES && <Text size="xs">and {all.length - SHOWN_ALIASES} more</Text>}
    </Group>
  );
}
