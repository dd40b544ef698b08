import { ActionIcon, Paper, Table } from "@mantine/core";
import { IconX } from "@tabler/icons-react";
import { visible } from "../../../app/labels";
import { duration, elapsed, percent } from "../../../app/format";
import { compareJobsRoute } from "../../../app/router";
import { TextLink } from "../../../ui/links";
import { StateBadge } from "../../../ui/states";
import type { Job } from "../jobState";
import { Swatch } from "./Tables";
import { DataTable, type Columns } from "../../../ui/ScrollTable";

const COLUMNS: Columns = ["Job", "State", "Progress", { head: "Time", visibleFrom: "sm" }, { head: "", w: 40 }];

/** The legend: each job with its colour and state. */
export function ComparedJobs({
  jobs,
  ids,
  labels,
}: {
  jobs: readonly (Job | undefined)[];
  ids: readonly string[];
  labels: readonly string[];
}) {
  const navigate = compareJobsRoute.useNavigate();
  return (
    <Paper withBorder>
      <DataTable aria-label="Compared jobs" fz="sm" columns={COLUMNS}>
        {ids.map((id, place) => (
          <Table.Tr key={id}>
            <Table.Th scope="row" fw={400}>
              <Swatch place={place} />{" "}
              <TextLink to="/jobs/$jobId" params={{ jobId: id }} className="user-text" size="sm">
                {visible(labels[place] ?? id, 100)}
              </TextLink>
            </Table.Th>
            <Table.Td>{jobs[place] !== undefined && <StateBadge state={jobs[place].state} />}</Table.Td>
            <Table.Td>{percent(jobs[place]?.progress.fraction, 0)}</Table.Td>
            <Table.Td visibleFrom="sm">{duration(elapsed(jobs[place]?.started_at, jobs[place]?.finished_at))}</Table.Td>
            <Table.Td>
              <ActionIcon
                variant="subtle"
                color="gray"
                size="sm"
                aria-label={`Remove ${visible(labels[place] ?? id, 60)}`}
                onClick={() =>
                  void navigate({ search: (before) => ({ ...before, ids: ids.filter((each) => each !== id) }), replace: true })
                }
              >
                <IconX size={14} />
              </ActionIcon>
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
    </Paper>
  );
}
