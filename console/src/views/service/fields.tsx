/** The fields that the dialogs about deployments and indexes share. */
import { Autocomplete, TextInput } from "@mantine/core";
import { useModelVersions } from "./queries";

interface Props {
  value: string;
  onChange: (value: string) => void;
}

export function NameInput({ value, onChange }: Props) {
  return (
    <TextInput
      label="Name"
      description="Lower-case letters, digits, . _ -"
      required
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
      data-autofocus
    />
  );
}

export function ModelInput({ value, onChange }: Props) {
  return (
    <Autocomplete
      label="Model"
      description="A version, as emoji@3, or an alias, as emoji@latest"
      required
      data={useModelVersions(true)}
      value={value}
      onChange={onChange}
      limit={50}
    />
  );
}
