import { Table } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { bytes, dateTime, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SLOW_MS } from "../../../app/queries";
import { Answer, Empty } from "../../../ui/states";
import type { TabProps } from "../JobPage";
import { ScrollTable } from "../../../ui/ScrollTable";

/** The committed checkpoints, from which an attempt can continue. */
export default function CheckpointsTab({ job, hasEnded }: TabProps) {
  const checkpoints = useQuery({
    queryKey: ["job", job.id, "checkpoints", job.state],
    queryFn: ({ signal }) => ask(api.GET("/v1/jobs/{job_id}/checkpoints", { params: { path: { job_id: job.id } }, signal })),
    refetchInterval: hasEnded ? false : SLOW_MS,
  });
  const names = new Map(job.stages.map((stage) => [stage.index, stage.name]));
  return (
    <Answer of={checkpoints}>
      {({ items }) =>
        items.length === 0 ? (
          <Empty title="No checkpoint">
            The first one is written after the number of steps that the spec says. Those of ended jobs are removed after some
            time.
          </Empty>
        ) : (
          <ScrollTable
            label="Table of checkpoints"
            minWidth={620}
            columns={["Stage", "Step", "Size", "Attempt", "Written", "Path"]}
            aria-label="Checkpoints"
          >
            {items.map((each) => (
              <Table.Tr key={each.path}>
                <Table.Th scope="row" fw={400} className="user-text">
                  {each.stage + 1}. {visible(names.get(each.stage) ?? "", 60)}
                </Table.Th>
                <Table.Td>{integer(each.step)}</Table.Td>
                <Table.Td style={{ whiteSpace: "nowrap" }}>{bytes(each.bytes)}</Table.Td>
                <Table.Td>{each.attempt}</Table.Td>
                <Table.Td style={{ whiteSpace: "nowrap" }}>{dateTime(each.created_at)}</Table.Td>
                <Table.Td ff="monospace" fz="xs" className="user-text">
                  {visible(each.path)}
                </Table.Td>
              </Table.Tr>
            ))}
          </ScrollTable>
        )
      }
    </Answer>
  );
}
