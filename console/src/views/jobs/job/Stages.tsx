import { Box, Group, Paper, SimpleGrid, Stack, Table, Text, Title } from "@mantine/core";
import { compact, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { StateBadge } from "../../../ui/states";
import type { Job } from "../jobState";
import { describeLayout, mainScore } from "./describe";

type Stage = Job["stages"][number];

/** The stages in their order, each with its student, newest metrics and scores. */
export function Stages({ stages }: { stages: readonly Stage[] }) {
  return (
    <section aria-labelledby="stages">
      <Title order={2} size="h4" mb="xs" id="stages">
        Stages
      </Title>
      <SimpleGrid cols={{ base: 1, sm: 2, xl: 3 }} spacing="sm" component="ol" p={0} m={0} style={{ listStyle: "none" }}>
        {stages.map((stage) => (
          <StageCard key={stage.index} stage={stage} />
        ))}
      </SimpleGrid>
    </section>
  );
}

const INHERITS: Record<string, string> = { manual: "inherits given sizes", auto: "prunes its parent", none: "starts from nothing" };

function StageCard({ stage }: { stage: Stage }) {
  return (
    <Paper component="li" withBorder p="sm">
      <Group justify="space-between" wrap="nowrap" align="flex-start">
        <Box>
          <Text fw={600} className="user-text">
            {stage.index + 1}. {visible(stage.name, 100)}
          </Text>
          <Text size="xs" c="dimmed">
            {INHERITS[stage.inherit] ?? stage.inherit}
          </Text>
        </Box>
        <StateBadge state={stage.state} />
      </Group>
      <Stack gap={6} mt="xs">
        {stage.student == null ? <Text size="sm" c="dimmed">The size is known once the stage begins.</Text> : <Student student={stage.student} />}
        <Latest metrics={stage.metrics} />
        <ScoreTable evaluation={stage.evaluation} />
      </Stack>
    </Paper>
  );
}

function Student({ student }: { student: NonNullable<Stage["student"]> }) {
  const layout = describeLayout(student.layout);
  return (
    <Box fz="sm">
      <Text size="sm">
        <b>{compact(student.image_params + student.text_params)}</b> parameters, <b>{compact(student.macs)}</b> MACs{student.estimated ? " (estimated)" : ""}
      </Text>
      <Text size="xs">
        Image: {compact(student.image_params)} – {layout.image}
      </Text>
      <Text size="xs">
        Text: {compact(student.text_params)} – {layout.text}
      </Text>
    </Box>
  );
}

/** The newest values that were reported, without those that have a place of their own. */
function Latest({ metrics }: { metrics: Stage["metrics"] }) {
  const last = metrics.last;
  if (typeof last !== "object" || last === null) return null;
  const shown = Object.entries(last).filter((entry): entry is [string, number] => ["loss", "lr", "sparsity", "grad_norm"].includes(entry[0]) && typeof entry[1] === "number");
  const names: Record<string, string> = { lr: "learning rate", grad_norm: "gradient norm" };
  return (
    <Text size="xs">
      {shown.map(([name, value]) => `${names[name] ?? name} ${significant(value)}`).join(" · ")}
    </Text>
  );
}

function ScoreTable({ evaluation }: { evaluation: Stage["evaluation"] }) {
  const tasks = Object.entries(evaluation);
  if (tasks.length === 0) return null;
  return (
    <Table fz="xs" verticalSpacing={3} horizontalSpacing={6} aria-label="Scores">
      <Table.Thead>
        <Table.Tr>
          <Table.Th scope="col">Task</Table.Th>
          <Table.Th scope="col">Score</Table.Th>
          <Table.Th scope="col">Student</Table.Th>
          <Table.Th scope="col">Teacher</Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {tasks.map(([task, { student, teacher }]) => {
          const score = mainScore(student);
          if (score === undefined) return null;
          return (
            <Table.Tr key={task}>
              <Table.Th scope="row" fw={400} className="user-text">
                {visible(task, 60)}
              </Table.Th>
              <Table.Td>{score.replaceAll("_", " ")}</Table.Td>
              <Table.Td>{percent(student[score] as number)}</Table.Td>
              <Table.Td>{typeof teacher?.[score] === "number" ? percent(teacher[score]) : "–"}</Table.Td>
            </Table.Tr>
          );
        })}
      </Table.Tbody>
    </Table>
  );
}
