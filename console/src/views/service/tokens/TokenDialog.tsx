/** Creates a token, and shows its secret once. */
import { Alert, Button, Checkbox, Group, Modal, NumberInput, Stack, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { RequestForm, useFields } from "../../../ui/RequestForm";
import { CopyText } from "../CopyText";

type Scope = Schemas["Scope"];

const SCOPES: { scope: Scope; description: string }[] = [
  { scope: "read", description: "Read everything, download models" },
  { scope: "write", description: "Create, change and delete resources; includes read" },
  { scope: "infer", description: "Query deployments" },
  { scope: "admin", description: "All of the above, and manage tokens" },
  { scope: "metrics", description: "Read /metrics, which covers all projects" },
];

export function TokenDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Create a token" closeOnClickOutside={false}>
      <TokenCreation onClose={onClose} />
    </Modal>
  );
}

function TokenCreation({ onClose }: { onClose: () => void }) {
  const [token, setToken] = useState<Schemas["NewToken"] | null>(null);
  const [{ name, scopes, days }, set] = useFields({ name: "", scopes: ["read"] as Scope[], days: 90 as string | number });
  if (token !== null) return <Secret token={token} onClose={onClose} />;
  const expires_in_days = days === "" ? null : Number(days);
  return (
    <RequestForm
      action="Create"
      isBlocked={name.trim() === "" || scopes.length === 0}
      send={() => ask(api.POST("/v1/tokens", { body: { name: name.trim(), scopes, expires_in_days } }))}
      queryKey={["tokens"]}
      onSent={setToken}
      onCancel={onClose}
    >
      <TextInput
        label="Name"
        description="Its purpose or owner"
        required
        maxLength={100}
        value={name}
        onChange={(event) => set({ name: event.currentTarget.value })}
        data-autofocus
      />
      <Checkbox.Group label="Scopes" value={scopes} onChange={(chosen) => set({ scopes: chosen })}>
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
        onChange={(given) => set({ days: given })}
      />
    </RequestForm>
  );
}

function Secret({ token, onClose }: { token: Schemas["NewToken"]; onClose: () => void }) {
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
