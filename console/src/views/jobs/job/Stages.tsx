import { Box, Group, Paper, Text } from "@mantine/core";
import { IconChevronRight } from "@tabler/icons-react";
import { compact } from "../../../app/format";
import { visible } from "../../../app/labels";
import { StateBadge } from "../../../ui/states";
import type { Job } from "../jobState";

type Stage = Job["stages"][number];

/** The stages from left to right, each with its state and the size of its student. */
export function Stages({ stages }: { stages: readonly Stage[] }) {
  return (
    <Box component="section" aria-label="Stages" tabIndex={0} style={{ overflowX: "auto" }}>
      <Group component="ol" wrap="nowrap" gap={6} p={0} m={0} style={{ listStyle: "none" }}>
        {stages.map((stage, place) => (
          <StageCard key={stage.index} stage={stage} isFirst={place === 0} />
        ))}
      </Group>
    </Box>
  );
}

const INHERITS: Record<string, string> = {
  manual: "inherits given sizes",
  auto: "prunes its parent",
  none: "starts from nothing",
};

function StageCard({ stage, isFirst }: { stage: Stage; isFirst: boolean }) {
  return (
    <Group component="li" gap={6} wrap="nowrap" style={{ flex: "0 1 auto" }}>
      {!isFirst && <IconChevronRight size={16} aria-hidden style={{ flex: "none", opacity: 0.6 }} />}
      <Paper withBorder px="sm" py={6} miw={230}>
        <Group justify="space-between" wrap="nowrap" gap="md">
          <Text size="sm" fw={600} className="user-text" lineClamp={1} title={visible(stage.name, 100)}>
            {stage.index + 1}. {visible(stage.name, 100)}
          </Text>
          <StateBadge state={stage.state} />
        </Group>
        <Text size="xs" c="dimmed" style={{ whiteSpace: "nowrap" }}>
          {size(stage.student)} · {INHERITS[stage.inherit] ?? stage.inherit}
        </Text>
      </Paper>
    </Group>
  );
}

/** The size of an automatic stage is known once it begins. */
function size(student: Stage["student"]): string {
  if (student == null) return "size not known yet";
  const parameters = compact(student.image_params + student.text_params);
  return `${parameters} parameters, ${compact(student.macs)} MACs${student.estimated ? " (estimated)" : ""}`;
}
