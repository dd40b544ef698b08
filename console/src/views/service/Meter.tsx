/** A bar of what is used of something, with its numbers. */
import { Group, Progress, Text } from "@mantine/core";

interface Props {
  label: string;
  used: number | null | undefined;
  total: number;
  format(value: number): string;
}

export function Meter({ label, used, total, format }: Props) {
  const share = used == null || total === 0 ? 0 : used / total;
  const numbers = used == null ? format(total) : `${format(used)} of ${format(total)}`;
  return (
    <div>
      <Group justify="space-between" gap="xs" wrap="nowrap">
        <Text size="xs">{label}</Text>
        <Text size="xs">{numbers}</Text>
      </Group>
      <Progress value={100 * Math.min(1, share)} color={share > 0.9 ? "orange" : "cyan"} size="sm" aria-label={`${label}: ${numbers}`} />
    </div>
  );
}
