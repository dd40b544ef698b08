import { Table, Text } from "@mantine/core";
import { useCallback, useMemo } from "react";
import { bytes, compact, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import { right, type Columns } from "../../../ui/ScrollTable";
import { StateBadge } from "../../../ui/states";
import { metricLabel } from "../../models/metrics";
import { VirtualTable } from "../../models/VirtualTable";
import { ModelLink } from "../ModelLink";
import { distinctGoals, goalsOf, qualityOf, type Goal } from "../quality";
import type { Search, Trial } from "../requests";
import { originInWords, settingsInWords } from "../settings";
import { hoursInWords } from "../words";

const NUMBER = { whiteSpace: "nowrap" } as const;

export function TrialTable({ search }: { search: Search }) {
  const { trials, post } = search;
  const goals = useMemo(() => distinctGoals(goalsOf(post)), [post]);
  const recommended = search.recommended?.trial;
  const row = useCallback(
    (index: number) => <Cells trial={trials[index]!} goals={goals} isRecommended={trials[index]!.number === recommended} />,
    [trials, goals, recommended],
  );
  if (trials.length === 0) {
    return (
      <Text size="sm" c="dimmed">
        No trial has begun.
      </Text>
    );
  }
  const columns: Columns = [
    "Trial",
    right("Rung"),
    { head: "Settings", w: 320 },
    "State",
    right("Parameters"),
    right("Size"),
    ...goals.map(({ task, metric }) => ({ ...right(visible(`${task}, ${metricLabel(metric)}`, 60)), className: "user-text" })),
    right("Used"),
    "Job",
  ];
  return (
    <VirtualTable
      label="Table of trials"
      columns={columns}
      count={trials.length}
      rowHeight={58}
      maxHeight={640}
      minWidth={860 + 110 * goals.length}
      rowKey={(index) => String(trials[index]!.number)}
      row={row}
    />
  );
}

function Cells({ trial, goals, isRecommended }: { trial: Trial; goals: Goal[]; isRecommended: boolean }) {
  const origin = originInWords(trial.settings);
  return (
    <>
      <Table.Th scope="row" fw={isRecommended ? 700 : 400}>
        {trial.number}
      </Table.Th>
      <Table.Td ta="right">{trial.rung}</Table.Td>
      <Table.Td>
        <Text size="sm" className="user-text">
          {visible(settingsInWords(trial.settings), 300)}
        </Text>
        {origin !== "" && (
          <Text size="xs" c="dimmed">
            {origin}
          </Text>
        )}
        {trial.error !== "" && (
          <Text
            size="xs"
            c="light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))"
            className="user-text"
            lineClamp={3}
          >
            {visible(trial.error, 500)}
          </Text>
        )}
      </Table.Td>
      <Table.Td>
        <StateBadge state={trial.state} />
        <ModelLink model={trial.model} />
        {isRecommended && <Text size="xs">recommended</Text>}
      </Table.Td>
      <Table.Td ta="right" style={NUMBER}>
        {compact(trial.params)}
      </Table.Td>
      <Table.Td ta="right" style={NUMBER}>
        {bytes(trial.bytes)}
      </Table.Td>
      {goals.map(({ task, metric }) => (
        <Table.Td key={`${task} ${metric}`} ta="right" style={NUMBER}>
          {percent(qualityOf(trial.quality, task, metric))}
        </Table.Td>
      ))}
      <Table.Td ta="right" style={NUMBER}>
        {hoursInWords(trial.device_hours)}
      </Table.Td>
      <Table.Td>
        {trial.job != null && (
          <TextLink to="/jobs/$jobId" params={{ jobId: trial.job }} size="sm" aria-label={`Job of trial ${trial.number}`}>
            {trial.job}
          </TextLink>
        )}
      </Table.Td>
    </>
  );
}
