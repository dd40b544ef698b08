import { Chip, CloseButton, Group, TagsInput, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconSearch } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { jobsRoute } from "../../../app/router";
import { STATES } from "../jobState";

/** What the list shows, kept in the address. */
export function Filters() {
  const { state = [], search = "", label = [] } = jobsRoute.useSearch();
  const navigate = jobsRoute.useNavigate();
  return (
    <Group gap="sm" align="flex-end">
      <SearchField value={search} onChange={(value) => void navigate({ search: (before) => ({ ...before, search: value || undefined }), replace: true })} />
      <TagsInput
        aria-label="Labels"
        placeholder={label.length === 0 ? "label, as key:value" : ""}
        value={label}
        onChange={(labels) => void navigate({ search: (before) => ({ ...before, label: labels.filter((each) => /^[^:]+:/.test(each)) }) })}
        acceptValueOnBlur
        size="xs"
        w={{ base: "100%", xs: 220 }}
      />
      <Chip.Group multiple value={state} onChange={(states) => void navigate({ search: (before) => ({ ...before, state: states }) })}>
        <Group gap={6} role="group" aria-label="States">
          {STATES.map((each) => (
            <Chip key={each} value={each} size="xs" variant="outline">
              {each}
            </Chip>
          ))}
        </Group>
      </Chip.Group>
    </Group>
  );
}

/** The address follows the text as soon as typing pauses. */
function SearchField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  const send = useDebouncedCallback(onChange, 300);
  const set = (next: string) => {
    setTyped(next);
    send(next.trim());
  };
  return (
    <TextInput
      type="search"
      aria-label="Search jobs"
      placeholder="name, id or label"
      value={typed}
      onChange={(event) => set(event.currentTarget.value)}
      leftSection={<IconSearch size={14} aria-hidden />}
      rightSection={typed === "" ? null : <CloseButton size="xs" aria-label="Clear the search" onClick={() => set("")} />}
      maxLength={200}
      size="xs"
      w={{ base: "100%", xs: 240 }}
    />
  );
}
