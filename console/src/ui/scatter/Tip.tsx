import { Paper, Text } from "@mantine/core";
import { visible } from "../../app/labels";
import type { Point } from "./types";

const WIDTH = 250;

/** What is known of the point under the mouse or with the focus. Screen readers read it at the point itself. */
export function Tip({ point, left, top, width }: { point: Point; left: number; top: number; width: number }) {
  const isRight = left > width / 2;
  return (
    <Paper
      withBorder
      shadow="md"
      p="xs"
      pos="absolute"
      aria-hidden
      style={{
        left: Math.max(0, Math.min(isRight ? left - WIDTH - 14 : left + 14, width - WIDTH)),
        top: Math.max(0, top - 30),
        width: WIDTH,
        pointerEvents: "none",
        zIndex: 5,
      }}
    >
      <Text fw={600} size="sm" className="user-text">
        {visible(point.label, 120)}
      </Text>
      {point.details.map(([name, value]) => (
        <Text key={name} size="xs" className="user-text">
          {name}: {visible(value, 200)}
        </Text>
      ))}
      {point.href !== undefined && (
        <Text size="xs" c="dimmed">
          Click or press Enter to open
        </Text>
      )}
    </Paper>
  );
}
