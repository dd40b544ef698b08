import { Chip, CloseButton, Group, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconSearch, IconTag } from "@tabler/icons-react";
import { useEffect, useRef, useState, type ReactNode } from "react";
import { jobsRoute } from "../../../app/router";
import { STATES } from "../jobState";

/** What the list shows, kept in the address. */
export function Filters() {
  const { state = [], search = "", label = [] } = jobsRoute.useSearch();
  const navigate = jobsRoute.useNavigate();
  return (
    <Group gap="sm" align="flex-end">
      <TextField
        label="Search jobs"
        placeholder="name, id or label"
        icon={<IconSearch size={14} aria-hidden />}
        value={search}
        onChange={(value) => void navigate({ search: (before) => ({ ...before, search: value || undefined }), replace: true })}
      />
      <TextField
        label="Labels"
        placeholder="labels, as key:value, key:value"
        icon={<IconTag size={14} aria-hidden />}
        value={label.join(", ")}
        onChange={(value) => void navigate({ search: (before) => ({ ...before, label: labelsOf(value) }), replace: true })}
      />
      <Chip.Group
        multiple
        value={state}
        onChange={(states) => void navigate({ search: (before) => ({ ...before, state: states }) })}
      >
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

/** What is typed is a label once it has a key and a colon. */
function labelsOf(typed: string): string[] | undefined {
  const labels = typed
    .split(",")
    .map((each) => each.trim())
    .filter((each) => /^[^:]+:./.test(each));
  return labels.length === 0 ? undefined : labels;
}

interface FieldProps {
  label: string;
  placeholder: string;
  icon: ReactNode;
  value: string;
  onChange: (value: string) => void;
}

/** The address follows the text as soon as typing pauses. */
function TextField({ label, placeholder, icon, value, onChange }: FieldProps) {
  const [typed, setTyped] = useState(value);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (document.activeElement !== input.current) setTyped(value); // nothing changes under the fingers
  }, [value]);
  const send = useDebouncedCallback(onChange, 300);
  const set = (next: string) => {
    setTyped(next);
    send(next.trim());
  };
  return (
    <TextInput
      ref={input}
      type="search"
      aria-label={label}
      placeholder={placeholder}
      value={typed}
      onChange={(event) => set(event.currentTarget.value)}
      leftSection={icon}
      rightSection={typed === "" ? null : <CloseButton size="xs" aria-label={`Clear: ${label}`} onClick={() => set("")} />}
      maxLength={200}
      size="xs"
      w={{ base: "100%", xs: 250 }}
    />
  );
}
