import { Alert, Code, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { Schemas } from "../../api/client";
import { visible } from "../../app/labels";

/** Why the newest registration, or a reinforcement, failed; the message names the remedy. */
export function DatasetFailure({
  error,
  title = "The registration failed",
  isShort = false,
}: {
  error: Schemas["DatasetError"] | null;
  title?: string;
  isShort?: boolean;
}) {
  if (error === null) return null;
  const text = (
    <Text size={isShort ? "xs" : "sm"} className="user-text" lineClamp={isShort ? 3 : undefined}>
      {visible(error.message)}
    </Text>
  );
  if (isShort) return text;
  return (
    <Alert color="red" variant="light" icon={<IconAlertTriangle />} title={title}>
      <Stack gap="xs">
        {text}
        {error.pointer != null && (
          <Text size="sm">
            Field <Code>{visible(error.pointer)}</Code>
            {error.value != null && (
              <>
                : <Code className="user-text">{visible(JSON.stringify(error.value), 200)}</Code>
              </>
            )}
          </Text>
        )}
      </Stack>
    </Alert>
  );
}
