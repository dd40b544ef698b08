import { Box, Paper, SimpleGrid, Stack, Table, Text, Title } from "@mantine/core";
import { compact, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import type { Job } from "../jobState";
import type { TabProps } from "../JobPage";
import { describeLayout, mainScore } from "./describe";
import { DataTable } from "../../../ui/ScrollTable";

type Stage = Job["stages"][number];

/** What each stage came to: its student, its newest metrics, and its scores beside those of the teacher. */
export default function ResultsTab({ job }: TabProps) {
  return (
    <SimpleGrid cols={{ base: 1, lg: Math.min(2, job.stages.length) }} spacing="sm">
      {job.stages.map((stage) => (
        <StageResults key={stage.index} stage={stage} />
      ))}
    </SimpleGrid>
  );
}

function StageResults({ stage }: { stage: Stage }) {
  return (
    <Paper withBorder p="sm" miw={0}>
      <Title order={2} size="h5" mb={6} className="user-text">
        {stage.index + 1}. {visible(stage.name, 100)}
      </Title>
      <Stack gap={6}>
        {stage.student == null ? (
          <Text size="sm" c="dimmed">
            The size is known once the stage begins.
          </Text>
        ) : (
          <Student student={stage.student} />
        )}
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
        <b>{compact(student.image_params + student.text_params)}</b> parameters, <b>{compact(student.macs)}</b> MACs
        {student.estimated ? " (estimated)" : ""}
      </Text>
      <Text size="sm">
        Image: {compact(student.image_params)} – {layout.image}
      </Text>
      <Text size="sm">
        Text: {compact(student.text_params)} – {layout.text}
      </Text>
    </Box>
  );
}

const SHOWN = ["loss", "lr", "sparsity", "grad_norm"];

/** The newest values that were reported, without those that have a place of their own. */
function Latest({ metrics }: { metrics: Stage["metrics"] }) {
  const last = metrics.last;
  if (typeof last !== "object" || last === null) return null;
  const shown = Object.entries(last).filter(
    (entry): entry is [string, number] => SHOWN.includes(entry[0]) && typeof entry[1] === "number",
  );
  const names: Record<string, string> = { lr: "learning rate", grad_norm: "gradient norm" };
  return <Text size="sm">{shown.map(([name, value]) => `${names[name] ?? name} ${significant(value)}`).join(" · ")}</Text>;
}

function ScoreTable({ evaluation }: { evaluation: Stage["evaluation"] }) {
  const tasks = Object.entries(evaluation);
  if (tasks.length === 0) {
    return (
      <Text size="sm" c="dimmed">
        No scores yet: the first evaluation brings them.
      </Text>
    );
  }
  return (
    <DataTable aria-label="Scores" columns={["Task", "Score", "Student", "Teacher"]}>
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
    </DataTable>
  );
}
