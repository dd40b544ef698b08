import { Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { dateTime, duration, elapsed } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SLOW_MS } from "../../../app/queries";
import { Answer, Empty, StateBadge } from "../../../ui/states";
import type { TabProps } from "../JobPage";
import { ScrollTable } from "../../../ui/ScrollTable";

/** The runs of this job as Ray jobs, with the reasons for which they ended. */
export default function AttemptsTab({ job, hasEnded }: TabProps) {
  const attempts = useQuery({
    queryKey: ["job", job.id, "attempts", job.attempt, job.state],
    queryFn: ({ signal }) =>
      ask(api.GET("/v1/jobs/{job_id}/attempts", { params: { path: { job_id: job.id }, query: { page_size: 500 } }, signal })),
    refetchInterval: hasEnded ? false : SLOW_MS,
  });
  return (
    <Answer of={attempts}>
      {({ items }) =>
        items.length === 0 ? (
          <Empty title="No attempt yet">The first one begins when the cluster has room for it.</Empty>
        ) : (
          <ScrollTable
            label="Table of attempts"
            minWidth={640}
            columns={["Attempt", "Outcome", "Cause", "Began", "Took", "Ray job"]}
            aria-label="Attempts"
          >
            {items.toReversed().map((attempt) => (
              <Table.Tr key={attempt.number}>
                <Table.Th scope="row">{attempt.number}</Table.Th>
                <Table.Td>
                  <StateBadge state={attempt.outcome ?? "running"} />
                </Table.Td>
                <Table.Td>
                  <Text size="sm" className="user-text">
                    {visible(attempt.cause) || "–"}
                  </Text>
                </Table.Td>
                <Table.Td style={{ whiteSpace: "nowrap" }}>{dateTime(attempt.created_at)}</Table.Td>
                <Table.Td style={{ whiteSpace: "nowrap" }}>{duration(elapsed(attempt.created_at, attempt.finished_at))}</Table.Td>
                <Table.Td ff="monospace" fz="xs">
                  {attempt.ray_submission_id}
                </Table.Td>
              </Table.Tr>
            ))}
          </ScrollTable>
        )
      }
    </Answer>
  );
}
