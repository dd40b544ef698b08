/** A version's evaluation: each task beside the teacher, and its classes. */
import { Group, Select, Stack, Table, Text } from "@mantine/core";
import { useState } from "react";
import type { Schemas } from "../../api/client";
import { percent } from "../../app/format";
import { visible } from "../../app/labels";
import { ClassTable } from "./ClassTable";
import { CommandLine } from "./CommandLine";
import { formatMetric, isShare, keptShare, metricLabel, numbersOf, valueOf, type Metrics } from "./metrics";
import { referenceOf } from "./references";
import { Section } from "./Section";
import { right, ScrollTable } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];

export function EvaluationTab({ version }: { version: Version }) {
  const tasks = Object.entries(version.evaluation);
  if (tasks.length === 0) return <NotEvaluated version={version} />;
  const withClasses = tasks.filter(([, scores]) => Array.isArray(scores.student.per_class)).map(([task]) => task);
  return (
    <Stack>
      {tasks.map(([task, scores]) => (
        <Section key={task} title={visible(task)} aside={<Measured version={version} task={task} />}>
          <TaskTable task={task} scores={scores} teacher={version.teacher ?? null} />
        </Section>
      ))}
      {withClasses.length > 0 && <Classes version={version} tasks={withClasses} />}
    </Stack>
  );
}

function NotEvaluated({ version }: { version: Version }) {
  return (
    <Section title="Not evaluated yet">
      <Text size="sm" mb="xs">
        Describe a task in a file (zero-shot classes, captions or a linear probe) and evaluate the version on it:
      </Text>
      <CommandLine command={`tinyclip-client models evaluate ${referenceOf(version)} --task task.yaml`} />
    </Section>
  );
}

function Measured({ version, task }: { version: Version; task: string }) {
  const evaluation = version.evaluated_by[task];
  return (
    <Text size="xs" c="dimmed">
      {evaluation === undefined ? "measured at the end of the job" : `measured by evaluation ${evaluation}`}
    </Text>
  );
}

function TaskTable({ task, scores, teacher }: { task: string; scores: Schemas["Scores"]; teacher: string | null }) {
  const sizes = Object.entries((scores.student.by_size ?? {}) as Record<string, Metrics>);
  const hasTeacher = scores.teacher != null;
  return (
    <ScrollTable
      label={`Scores of ${visible(task)}`}
      minWidth={360}
      columns={[
        "Metric",
        right("This version"),
        hasTeacher && { ...right(visible(teacher ?? "Teacher")), className: "user-text" },
        hasTeacher && right("Share kept"),
      ]}
    >
      {[...numbersOf(scores.student), "ms_per_image"].map((metric) => (
        <MetricRow
          key={metric}
          label={metricLabel(metric)}
          metric={metric}
          student={scores.student}
          teacher={scores.teacher ?? null}
        />
      ))}
      {sizes.flatMap(([size, shorter]) =>
        numbersOf(shorter)
          .filter(isShare)
          .map((metric) => (
            <MetricRow
              key={`${size} ${metric}`}
              label={`${metricLabel(metric)}, first ${size} numbers`}
              metric={metric}
              student={shorter}
              teacher={hasTeacher ? {} : null}
            />
          )),
      )}
    </ScrollTable>
  );
}

function MetricRow({
  label,
  metric,
  student,
  teacher,
}: {
  label: string;
  metric: string;
  student: Metrics;
  teacher: Metrics | null;
}) {
  const [own, other] = [valueOf(student, metric), valueOf(teacher, metric)];
  if (own === null) return null;
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={400}>
        {label}
      </Table.Th>
      <Table.Td ta="right" fw={600}>
        {formatMetric(metric, own)}
      </Table.Td>
      {teacher !== null && <Table.Td ta="right">{formatMetric(metric, other)}</Table.Td>}
      {teacher !== null && <Table.Td ta="right">{isShare(metric) ? percent(keptShare(own, other)) : ""}</Table.Td>}
    </Table.Tr>
  );
}

function Classes({ version, tasks }: { version: Version; tasks: string[] }) {
  const [task, setTask] = useState(tasks[0]!);
  const shown = tasks.includes(task) ? task : tasks[0]!;
  return (
    <Section title="Classes">
      <Stack gap="sm">
        {tasks.length > 1 && (
          <Group>
            <Select
              label="Task"
              data={tasks}
              value={shown}
              onChange={(value) => value !== null && setTask(value)}
              allowDeselect={false}
            />
          </Group>
        )}
        <ClassTable key={shown} version={version} task={shown} />
      </Stack>
    </Section>
  );
}
