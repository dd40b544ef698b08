/** Places of a template that need a folder of this user, filled in everywhere at once. */
import { Alert, Button, Group, Stack, Text, TextInput } from "@mantine/core";
import { IconFolder } from "@tabler/icons-react";
import { useState } from "react";
import { withoutPlaceholder, type PLACEHOLDERS } from "./document/edit";

type Place = (typeof PLACEHOLDERS)[number];

export function Placeholders({ places, text, onReplace }: { places: Place[]; text: string; onReplace: (text: string) => void }) {
  if (places.length === 0) return null;
  return (
    <Alert color="blue" variant="light" icon={<IconFolder />} title="This template needs addresses of yours">
      <Stack gap="xs">
        {places.map((place) => (
          <PlaceholderInput
            key={place.text}
            place={place}
            onFill={(value) => onReplace(withoutPlaceholder(text, place.text, value))}
          />
        ))}
        <Text size="sm" c="var(--mantine-color-text)">
          The server and its workers read them, not the browser. A registered data set needs no address.
        </Text>
      </Stack>
    </Alert>
  );
}

function PlaceholderInput({ place, onFill }: { place: Place; onFill: (value: string) => void }) {
  const [value, setValue] = useState("");
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (value.trim() !== "") onFill(value);
      }}
    >
      <Group gap="xs" align="flex-end">
        <TextInput
          label={place.label}
          placeholder={place.example}
          value={value}
          onChange={(event) => setValue(event.currentTarget.value)}
          w="min(360px, 64vw)"
        />
        <Button type="submit" variant="default" disabled={value.trim() === ""}>
          Fill in
        </Button>
      </Group>
    </form>
  );
}
