import { Group as Row, Text } from "@mantine/core";
import { Shape } from "./Shape";
import type { Group } from "./types";

/** `front`: what the line of the front is called; null: there is none. */
export function Legend({ groups, front }: { groups: Group[]; front: string | null }) {
  return (
    <Row gap="lg" mb={4} aria-label="Legend" role="group">
      {groups.map((group) => (
        <Row key={group.name} gap={6} wrap="nowrap">
          <svg width={16} height={16} aria-hidden>
            <Shape mark={group.mark} color={group.color} left={8} top={8} isFaint={group.isFaint ?? false} />
          </svg>
          <Text size="sm">{group.name}</Text>
        </Row>
      ))}
      {front !== null && (
        <Row gap={6} wrap="nowrap">
          <svg width={24} height={16} aria-hidden>
            <line x1={0} x2={24} y1={8} y2={8} stroke="var(--mantine-color-dimmed)" strokeWidth={1.5} strokeDasharray="5 4" />
          </svg>
          <Text size="sm">{front}</Text>
        </Row>
      )}
    </Row>
  );
}
