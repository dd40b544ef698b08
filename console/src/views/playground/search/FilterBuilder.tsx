import { Anchor, Button, Fieldset, Group, Stack, Text } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useState } from "react";
import { visible } from "../../../app/labels";
import { ConditionRow } from "./ConditionRow";
import { FilterJson } from "./FilterJson";
import { fromFilter, readFilter, toFilter, type Condition, type Kind } from "./filters";

interface Props {
  fields: ReadonlyMap<string, Kind>;
  /** The filter of the address, as JSON. */
  given: string | undefined;
  onChange: (filter: string | undefined) => void;
}

const NEW_ROW: Condition = { path: "", operator: "=", value: "" };
const TYPING_MS = 400;

/** Conditions on the metadata of hits: rows of field, operator and value, or the JSON of the API. */
export function FilterBuilder({ fields, given, onChange }: Props) {
  const [rows, setRows] = useState<Condition[] | null>(() => rowsOf(given));
  const [known, setKnown] = useState(given);
  const [isRaw, setRaw] = useState(rows === null);
  const [problem, setProblem] = useState<string | null>(null);
  // The address has changed by other means, as by going back.
  if (given !== known) {
    setKnown(given);
    setRows(rowsOf(given));
  }
  const emit = useDebouncedCallback((next: string | undefined) => {
    setKnown(next);
    onChange(next);
  }, TYPING_MS);
  const change = (next: Condition[]) => {
    setRows(next);
    const { filter, problem } = toFilter(next, fields);
    setProblem(problem);
    if (problem === null) emit(filter === null ? undefined : JSON.stringify(filter));
  };
  const isJson = isRaw || rows === null;
  return (
    <Fieldset legend="Filter" p="xs" miw={280}>
      <Stack gap="xs">
        {isJson ? (
          <FilterJson given={given} onChange={onChange} />
        ) : (
          rows.map((row, place) => (
            <ConditionRow
              key={place}
              row={row}
              number={place + 1}
              fields={fields}
              onChange={(next) => change(rows.map((each, at) => (at === place ? next : each)))}
              onRemove={() => change(rows.filter((_, at) => at !== place))}
            />
          ))
        )}
        {problem !== null && (
          <Text size="xs" c="red" role="alert">
            {visible(problem, 300)}
          </Text>
        )}
        <Group gap="sm">
          {!isJson && (
            <Button size="compact-sm" variant="default" onClick={() => setRows([...rows, NEW_ROW])}>
              Add a condition
            </Button>
          )}
          {(rows !== null || !isRaw) && (
            <Anchor component="button" type="button" size="sm" onClick={() => setRaw(!isRaw)}>
              {isJson ? "Edit as conditions" : "Edit as JSON"}
            </Anchor>
          )}
        </Group>
      </Stack>
    </Fieldset>
  );
}

/** Null: the filter has what rows cannot show. */
function rowsOf(given: string | undefined): Condition[] | null {
  const filter = readFilter(given);
  return filter === null ? [] : fromFilter(filter);
}
