import { Table, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { ago, integer, milliseconds } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import { StateBadge } from "../../../ui/states";
import { ScrollTable } from "../../../ui/ScrollTable";

export function ReplicaTable({ replicas }: { replicas: Schemas["ReplicaTraffic"][] }) {
  if (replicas.length === 0) return <Text size="sm">No replica has started yet.</Text>;
  return (
    <ScrollTable
      label="Table of replicas"
      minWidth={620}
      columns={["Replica", "State", "Node", "Started", "Queries", "Mean latency", "Waiting items"]}
      verticalSpacing={3}
      fz="sm"
      style={{ whiteSpace: "nowrap" }}
    >
      {replicas.map((replica) => (
        <Table.Tr key={replica.id}>
          <Table.Th scope="row" fw={400} className="user-text">
            {visible(replica.id, 80)}
          </Table.Th>
          <Table.Td miw={110}>
            <StateBadge state={replica.state.toLowerCase()} />
          </Table.Td>
          <Table.Td>
            {replica.node_ip == null ? (
              "–"
            ) : (
              <TextLink inherit to="/service" search={{ tab: "cluster" }}>
                {visible(replica.node_ip)}
              </TextLink>
            )}
          </Table.Td>
          <Table.Td>{ago(replica.started_at)}</Table.Td>
          <Table.Td>{integer(replica.requests)}</Table.Td>
          <Table.Td>{milliseconds(replica.mean_ms)}</Table.Td>
          <Table.Td>{integer(replica.waiting_items)}</Table.Td>
        </Table.Tr>
      ))}
    </ScrollTable>
  );
}
