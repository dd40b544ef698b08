import { Box, Checkbox, Group, Progress, Table, Text } from "@mantine/core";
import { memo } from "react";
import { ago, compact, dateTime, duration, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { stateColor } from "../../../app/theme";
import { TextLink } from "../../../ui/links";
import { StateBadge } from "../../../ui/states";
import { hasEnded } from "../jobState";
import type { ListedJob } from "./mergeJobs";

export const ROW_HEIGHT = 52;

interface Props {
  job: ListedJob;
  row: number;
  isSelected: boolean;
  onSelect: (id: string, isSelected: boolean) => void;
}

export const JobRow = memo(function JobRow({ job, row, isSelected, onSelect }: Props) {
  const name = visible(job.name, 200);
  return (
    <Table.Tr h={ROW_HEIGHT} aria-rowindex={row + 2} {...(isSelected ? { bg: "var(--mantine-color-default-hover)" } : {})}>
      <Table.Td>
        <Checkbox
          size="xs"
          aria-label={`Select ${name}`}
          checked={isSelected}
          onChange={(event) => onSelect(job.id, event.currentTarget.checked)}
        />
      </Table.Td>
      <Table.Th scope="row" fw={400}>
        <TextLink to="/jobs/$jobId" params={{ jobId: job.id }} className="user-text" fw={600} size="sm" truncate display="block">
          {name}
        </TextLink>
        <SecondLine job={job} />
      </Table.Th>
      <Table.Td>
        <StateBadge state={job.state} />
      </Table.Td>
      <Table.Td>
        <JobProgress job={job} />
      </Table.Td>
      <Table.Td visibleFrom="md" style={{ whiteSpace: "nowrap" }}>
        {hasEnded(job) ? "" : duration(job.progress.eta_seconds)}
      </Table.Td>
      <Table.Td visibleFrom="lg" style={{ whiteSpace: "nowrap" }}>
        {job.progress.pairs_per_second == null ? "" : compact(job.progress.pairs_per_second)}
      </Table.Td>
      <Table.Td visibleFrom="md">
        {job.model !== null && (
          <TextLink
            to="/models/$name"
            params={{ name: job.model.name }}
            search={{ version: String(job.model.version) }}
            className="user-text"
            size="sm"
            truncate
            display="block"
          >
            {visible(job.model.name)}@{job.model.version}
          </TextLink>
        )}
      </Table.Td>
      <Table.Td visibleFrom="sm" style={{ whiteSpace: "nowrap" }} title={dateTime(job.created_at)}>
        {ago(job.created_at)}
      </Table.Td>
    </Table.Tr>
  );
});

/** The error of a failed job; otherwise what it waits for, or its labels. */
function SecondLine({ job }: { job: ListedJob }) {
  const labels = Object.entries(job.labels).map(([key, value]) => `${key}: ${value}`);
  const text = job.error ?? job.progress.waiting ?? (labels.join(", ") || job.id);
  const color = job.error !== null ? "light-dark(#b02525, #ff9c9c)" : "dimmed";
  return (
    <Text size="xs" c={color} truncate className="user-text" title={visible(text, 500)}>
      {visible(text, 300)}
    </Text>
  );
}

function JobProgress({ job }: { job: ListedJob }) {
  const { fraction, step, steps, stage, stages } = job.progress;
  const percent = Math.round(100 * fraction);
  return (
    <Box>
      <Progress value={percent} color={stateColor(job.state)} size="sm" aria-label={`${percent} % of ${visible(job.name, 60)}`} />
      <Group justify="space-between" gap={4} wrap="nowrap">
        <Text size="xs" truncate>
          {integer(step)}/{integer(steps)}
        </Text>
        {stages > 1 && (
          <Text size="xs" c="dimmed" visibleFrom="xs" truncate>
            stage {Math.min(stage + 1, stages)} of {stages}
          </Text>
        )}
      </Group>
    </Box>
  );
}
