import { Group, Loader, Text } from "@mantine/core";
import { milliseconds } from "../../app/format";
import { visible } from "../../app/labels";

/** Which model answered, and how long it took from here. */
export function Answered({
  deployment,
  model,
  took,
  isFetching,
}: {
  deployment: string;
  model: string | undefined;
  took: number | undefined;
  isFetching: boolean;
}) {
  return (
    <Group gap="xs" aria-live="polite" mih={24}>
      <Text size="sm" fw={600} className="user-text">
        {visible(deployment)}
      </Text>
      {model !== undefined && (
        <Text size="sm" className="user-text">
          {visible(model)}
        </Text>
      )}
      {took !== undefined && (
        <Text size="sm" title="From sending the query to its answer, measured in this browser">
          {milliseconds(Math.round(took))}
        </Text>
      )}
      {isFetching && <Loader size={14} role="img" aria-label="Asking" />}
    </Group>
  );
}
