import { Table } from "@mantine/core";
import type { ReactNode } from "react";
import type { Schemas } from "../../../api/client";
import { ago } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import { ScrollTable } from "../../../ui/ScrollTable";

type Workload = Schemas["Workload"];

export function WorkloadTable({ workloads, nodes }: { workloads: Workload[]; nodes: Schemas["ClusterNode"][] }) {
  const hosts = new Map(nodes.map((node) => [node.id, node.hostname || node.ip]));
  return (
    <ScrollTable
      label="Table of workloads"
      minWidth={640}
      columns={["Kind", "Name", "Ray's status", "Nodes", "Started", "Ray's id"]}
    >
      {workloads.map((one, place) => (
        <Table.Tr key={`${one.kind} ${one.id} ${one.replica ?? place}`}>
          <Table.Td>{one.kind}</Table.Td>
          <Table.Th scope="row" fw={600} className="user-text">
            <WorkloadLink workload={one} />
          </Table.Th>
          <Table.Td>{one.status.toLowerCase()}</Table.Td>
          <Table.Td className="user-text">
            {(one.nodes ?? []).map((node) => visible(hosts.get(node) ?? node.slice(0, 8))).join(", ") || "–"}
          </Table.Td>
          <Table.Td>{ago(one.started_at)}</Table.Td>
          <Table.Td className="user-text">{visible(one.replica ?? one.submission_id ?? "–", 80)}</Table.Td>
        </Table.Tr>
      ))}
    </ScrollTable>
  );
}

function WorkloadLink({ workload: { kind, name, id } }: { workload: Workload }): ReactNode {
  const text = visible(name, 80);
  if (kind === "job")
    return (
      <TextLink inherit to="/jobs/$jobId" params={{ jobId: id }}>
        {text}
      </TextLink>
    );
  if (kind === "replica")
    return (
      <TextLink inherit to="/service/deployments/$name" params={{ name }}>
        {text}
      </TextLink>
    );
  if (kind === "index")
    return (
      <TextLink inherit to="/service" search={{ tab: "indexes" }}>
        {text}
      </TextLink>
    );
  if (kind === "dataset")
    return (
      <TextLink inherit to="/datasets/$name" params={{ name }}>
        {text}
      </TextLink>
    );
  return text;
}
