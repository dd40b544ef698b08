/** A bar of what is used of something, with its numbers. */
import { Group, Progress, Text } from "@mantine/core";

interface Props {
  label: string;
  used: number | null | undefined;
  total: number;
  format: (value: number) => string;
  /** A warning colour when it is nearly all used. */
  isScarce?: boolean;
  /** A share of 100: the total is not shown. */
  isShare?: boolean;
}

export function Meter({ label, used, total, format, isScarce = false, isShare = false }: Props) {
  const share = used == null || total === 0 ? 0 : used / total;
  const numbers = used == null ? format(total) : isShare ? format(used) : `${format(used)} of ${format(total)}`;
  return (
    <div>
      <Group justify="space-between" gap="xs" wrap="nowrap">
        <Text size="xs">{label}</Text>
        <Text size="xs">{numbers}</Text>
      </Group>
      <Progress
        value={100 * Math.min(1, share)}
        color={isScarce && share > 0.9 ? "orange" : "cyan"}
        size="sm"
        aria-label={`${label}: ${numbers}`}
      />
    </div>
  );
}
