import { Button, Code, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { ErrorState } from "../ui/states";
import { errorOf } from "../api/problems";
import { signIn } from "./session";

/** Ask for a token. It is checked with the server, then kept for this tab only. */
export default function SignIn() {
  const client = useQueryClient();
  const [value, setValue] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [checking, setChecking] = useState(false);

  async function submit(event: FormEvent): Promise<void> {
    event.preventDefault();
    setChecking(true);
    setError(null);
    try {
      const answer = await fetch("/v1/me", { headers: { Authorization: `Bearer ${value.trim()}` } });
      if (!answer.ok) throw await errorOf(answer);
      client.clear();
      signIn(value.trim());
    } catch (problem) {
      setError(problem);
    } finally {
      setChecking(false);
    }
  }

  return (
    <Paper maw={460} mx="auto" mt={60} p="lg" withBorder>
      <form onSubmit={(event) => void submit(event)}>
        <Stack>
          <Title order={1} size="h3">
            Sign in
          </Title>
          <Text size="sm">
            This service requires a token. An administrator of your project creates one with{" "}
            <Code>tinyclip-client tokens create</Code>.
          </Text>
          <PasswordInput
            label="Token"
            placeholder="tc_…"
            value={value}
            onChange={(event) => setValue(event.currentTarget.value)}
            autoComplete="off"
            required
            data-autofocus
          />
          {error !== null && <ErrorState error={error} />}
          <Button type="submit" loading={checking} disabled={value.trim() === ""}>
            Sign in
          </Button>
          <Text size="xs" c="dimmed">
            The token is kept in this browser tab until it is closed.
          </Text>
        </Stack>
      </form>
    </Paper>
  );
}
