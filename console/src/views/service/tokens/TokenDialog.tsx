/** Creates a token, and shows its secret once. */
import { Alert, Button, Checkbox, Group, Modal, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { ErrorState } from "../../../ui/states";
import { CopyText } from "../CopyText";

type Scope = Schemas["Scope"];

const SCOPES: { scope: Scope; description: string }[] = [
  { scope: "read", description: "Read everything, download models" },
  { scope: "write", description: "Create, change and delete resources; includes read" },
  { scope: "infer", description: "Query deployments" },
  { scope: "admin", description: "All of the above, and manage tokens" },
  { scope: "metrics", description: "Read /metrics, which covers all projects" },
];

export function TokenDialog({ opened, onClose }: { opened: boolean; onClose(): void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Create a token" closeOnClickOutside={false}>
      <TokenCreation onClose={onClose} />
    </Modal>
  );
}

function TokenCreation({ onClose }: { onClose(): void }) {
  const client = useQueryClient();
  const creation = useMutation({
    mutationFn: (body: Schemas["TokenPost"]) => ask(api.POST("/v1/tokens", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["tokens"] }),
    gcTime: 0, // the secret is not kept
  });
  if (creation.data !== undefined) return <Secret token={creation.data} onClose={onClose} />;
  return (
    <TokenForm
      onSubmit={(body) => creation.mutate(body)}
      isPending={creation.isPending}
      error={creation.error}
      onClose={onClose}
    />
  );
}

interface FormProps {
  onSubmit(body: Schemas["TokenPost"]): void;
  isPending: boolean;
  error: unknown;
  onClose(): void;
}

function TokenForm({ onSubmit, isPending, error, onClose }: FormProps) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>(["read"]);
  const [days, setDays] = useState<string | number>(90);
  const isComplete = name.trim() !== "" && scopes.length > 0;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (isComplete)
          onSubmit({ name: name.trim(), scopes: scopes as Scope[], expires_in_days: days === "" ? null : Number(days) });
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="Name"
          description="Its purpose or owner"
          required
          maxLength={100}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          data-autofocus
        />
        <Checkbox.Group label="Scopes" value={scopes} onChange={setScopes}>
          <Stack gap={6} mt={4}>
            {SCOPES.map(({ scope, description }) => (
              <Checkbox key={scope} value={scope} label={scope} description={description} />
            ))}
          </Stack>
        </Checkbox.Group>
        <NumberInput
          label="Expires in"
          description="Empty: never"
          suffix=" days"
          min={1}
          max={3650}
          allowDecimal={false}
          value={days}
          onChange={setDays}
        />
        {error !== null && <ErrorState error={error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" disabled={!isComplete} loading={isPending}>
            Create
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Secret({ token, onClose }: { token: Schemas["NewToken"]; onClose(): void }) {
  return (
    <Stack gap="sm">
      <Alert color="orange" variant="light" title="Copy the token now">
        <Text size="sm" c="var(--mantine-color-text)">
          It is not stored and cannot be shown again.
        </Text>
      </Alert>
      <CopyText text={token.token} label="Copy the token" />
      <Group justify="flex-end">
        <Button onClick={onClose}>Done</Button>
      </Group>
    </Stack>
  );
}
