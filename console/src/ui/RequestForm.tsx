/** A form that sends one request: its fields, what went wrong, and the buttons below. */
import { Button, Group, Stack } from "@mantine/core";
import { useMutation, useQueryClient, type QueryKey } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { ErrorState } from "./states";

interface Props<Answer> {
  send: () => Promise<Answer>;
  onSent: (answer: Answer) => void;
  /** What is read again once it is sent. */
  queryKey: QueryKey;
  /** False, or why it cannot be sent: it is not complete yet. */
  isBlocked: boolean | string;
  /** The verb on the button, as "Create". */
  action: string;
  onCancel: () => void;
  /** The fields. */
  children: ReactNode;
}

export function RequestForm<Answer>({ send, onSent, queryKey, isBlocked, action, onCancel, children }: Props<Answer>) {
  const client = useQueryClient();
  const request = useMutation({
    mutationFn: send,
    onSuccess: (answer) => {
      onSent(answer);
      void client.invalidateQueries({ queryKey });
    },
    gcTime: 0, // an answer may have a secret
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (isBlocked === false) request.mutate();
      }}
    >
      <Stack gap="sm">
        {children}
        {request.isError && <ErrorState error={request.error} />}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onCancel}>
            Cancel
          </Button>
          <Button
            type="submit"
            loading={request.isPending}
            disabled={isBlocked !== false}
            title={typeof isBlocked === "string" ? isBlocked : undefined}
          >
            {action}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** The values of a form's fields, and how to change some of them. */
export function useFields<Fields extends object>(initial: Fields | (() => Fields)) {
  const [fields, setFields] = useState(initial);
  return [fields, (change: Partial<Fields>) => setFields((before) => ({ ...before, ...change }))] as const;
}
