import { Table, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { ago, integer, milliseconds } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import { StateBadge } from "../../../ui/states";

export function ReplicaTable({ replicas }: { replicas: Schemas["ReplicaTraffic"][] }) {
  if (replicas.length === 0) return <Text size="sm">No replica has started yet.</Text>;
  return (
    <Table.ScrollContainer
      minWidth={620}
      scrollAreaProps={{ viewportProps: { tabIndex: 0, role: "region", "aria-label": "Table of replicas" } }}
    >
      <Table verticalSpacing={3} fz="sm" style={{ whiteSpace: "nowrap" }}>
        <Table.Thead>
          <Table.Tr>
            {["Replica", "State", "Node", "Started", "Queries", "Mean latency", "Waiting items"].map((title) => (
              <Table.Th key={title} scope="col">
                {title}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
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
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
