import { Autocomplete, CloseButton, Group, NativeSelect, TextInput } from "@mantine/core";
import { OPERATORS, type Condition, type Kind, type Operator } from "./filters";

interface Props {
  row: Condition;
  number: number;
  fields: ReadonlyMap<string, Kind>;
  onChange: (row: Condition) => void;
  onRemove: () => void;
}

/** One condition: a field of the metadata, an operator and a value. */
export function ConditionRow({ row, number, fields, onChange, onRemove }: Props) {
  return (
    <Group gap={6} wrap="nowrap">
      <Autocomplete
        size="xs"
        w={150}
        aria-label={`Field of condition ${number}`}
        placeholder="field"
        data={[...fields.keys()]}
        value={row.path}
        onChange={(path) => onChange({ ...row, path })}
      />
      <NativeSelect
        size="xs"
        w={64}
        aria-label={`Operator of condition ${number}`}
        data={[...OPERATORS]}
        value={row.operator}
        onChange={(event) => onChange({ ...row, operator: event.currentTarget.value as Operator })}
      />
      <TextInput
        size="xs"
        w={150}
        aria-label={`Value of condition ${number}`}
        placeholder={row.operator === "in" ? "red, blue" : "value"}
        value={row.value}
        onChange={(event) => onChange({ ...row, value: event.currentTarget.value })}
      />
      <CloseButton size="sm" aria-label={`Remove condition ${number}`} onClick={onRemove} />
    </Group>
  );
}
