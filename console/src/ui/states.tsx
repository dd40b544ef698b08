/** The four states of a view that shows an answer of the API: loading, error, empty, and a badge for those of resources. */
import { Alert, Button, Center, Code, Loader, Stack, Text, Title } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { UseQueryResult } from "@tanstack/react-query";
import type { CSSProperties, ReactNode } from "react";
import { ApiError } from "../api/problems";
import { visible } from "../app/labels";
import { stateColor } from "../app/theme";
import classes from "./states.module.css";

export function Loading({ label = "Loading" }: { label?: string }) {
  return (
    <Center mih={160} role="status" aria-label={label}>
      <Loader />
    </Center>
  );
}

export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <Center mih={220} p="md">
      <Stack align="center" gap="xs" maw={520} ta="center">
        <Title order={2} size="h4">
          {title}
        </Title>
        {children !== undefined && (
          <Text c="dimmed" component="div">
            {children}
          </Text>
        )}
        {action}
      </Stack>
    </Center>
  );
}

/** An error with everything that helps: title, detail, the fields at fault and the request's id. */
export function ErrorState({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const problem = error instanceof ApiError ? error.problem : null;
  const message = error instanceof Error ? error.message : String(error);
  return (
    <Alert color="red" variant="light" icon={<IconAlertTriangle />} title={problem?.title ?? "This did not work"} role="alert">
      <Stack gap="xs" align="flex-start">
        <Text className="user-text">{visible(message)}</Text>
        {problem?.errors?.map((each, place) => (
          <Text key={place} size="sm" className="user-text">
            <Code>{visible(each.pointer)}</Code> {visible(each.message)}
          </Text>
        ))}
        {problem?.request_id != null && (
          <Text size="xs" c="dimmed">
            request {problem.request_id}
          </Text>
        )}
        {onRetry !== undefined && (
          <Button size="xs" variant="default" onClick={onRetry}>
            Try again
          </Button>
        )}
      </Stack>
    </Alert>
  );
}

/** Show an answer as soon as there is one; an error only when nothing can be shown. */
export function Answer<T>({ of, children }: { of: UseQueryResult<T>; children: (data: T) => ReactNode }) {
  if (of.data !== undefined) return <>{children(of.data)}</>;
  if (of.isError) return <ErrorState error={of.error} onRetry={() => void of.refetch()} />;
  return <Loading />;
}

/** A plain element, because lists have many. */
export function StateBadge({ state }: { state: string }) {
  const color = stateColor(state);
  const colors = {
    "--badge-bg": `var(--mantine-color-${color}-light)`,
    "--badge-color": `var(--mantine-color-${color}-light-color)`,
  };
  return (
    <span className={classes.badge} style={colors as CSSProperties}>
      {state}
    </span>
  );
}
