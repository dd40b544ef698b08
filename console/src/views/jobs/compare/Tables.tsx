import { Box, Table, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SERIES } from "../../../app/theme";
import type { Job } from "../jobState";
import { differingFields } from "../spec/specRows";
import { best, scoreRows } from "./scores";
import { ScrollTable } from "../../../ui/ScrollTable";

interface ByJob {
  id: string;
  title: string;
  labels: readonly string[];
  /** Names of the first columns. */
  heads: readonly string[];
  children: ReactNode;
}

/** A table with a column for each job, in its colour. */
function TableByJob({ id, title, labels, heads, children }: ByJob) {
  return (
    <div>
      <Title order={2} size="h4" mb="xs" id={id}>
        {title}
      </Title>
      <ScrollTable
        label={title}
        minWidth={200 + 140 * labels.length}
        columns={[
          ...heads,
          ...labels.map((label, place) => ({ head: <JobHead place={place} label={label} />, className: "user-text" })),
        ]}
        aria-labelledby={id}
        fz="sm"
      >
        {children}
      </ScrollTable>
    </div>
  );
}

function JobHead({ place, label }: { place: number; label: string }) {
  return (
    <>
      <Swatch place={place} /> {visible(label, 60)}
    </>
  );
}

export function Swatch({ place }: { place: number }) {
  return (
    <Box
      component="span"
      display="inline-block"
      w={10}
      h={10}
      style={{ borderRadius: 3, background: SERIES[place % SERIES.length] }}
      aria-hidden
    />
  );
}

/** The newest scores of each job; the best of a row is bold. */
export function ScoreTable({ jobs, labels }: { jobs: readonly Job[]; labels: readonly string[] }) {
  const rows = scoreRows(jobs);
  if (rows.length === 0) return null;
  return (
    <TableByJob id="scores" title="Evaluation" labels={labels} heads={["Task", "Score"]}>
      {rows.map(({ task, score, values }) => (
        <Table.Tr key={`${task}/${score}`}>
          <Table.Th scope="row" fw={400} className="user-text">
            {visible(task, 60)}
          </Table.Th>
          <Table.Td>{visible(score.replaceAll("_", " "), 60)}</Table.Td>
          {values.map((value, place) => (
            <Table.Td key={place} fw={value !== undefined && value === best(values) ? 700 : 400}>
              {percent(value)}
            </Table.Td>
          ))}
        </Table.Tr>
      ))}
    </TableByJob>
  );
}

const SHOWN_FIELDS = 500;

/** The fields of the specs in which the jobs differ. */
export function SpecDifferences({ specs, labels }: { specs: readonly unknown[]; labels: readonly string[] }) {
  const fields = differingFields(specs);
  return (
    <>
      <TableByJob id="differences" title="Differences of the specs" labels={labels} heads={["Field"]}>
        {fields.slice(0, SHOWN_FIELDS).map(({ path, values }) => (
          <Table.Tr key={path}>
            <Table.Th scope="row" fw={400} ff="monospace" fz="xs" className="user-text">
              {visible(path, 200)}
            </Table.Th>
            {values.map((value, place) => (
              <Table.Td key={place} ff="monospace" fz="xs" className="user-text">
                {value === undefined ? "–" : visible(typeof value === "string" ? value : JSON.stringify(value), 200)}
              </Table.Td>
            ))}
          </Table.Tr>
        ))}
      </TableByJob>
      {fields.length === 0 && <Text size="sm">The specs are the same.</Text>}
    </>
  );
}
