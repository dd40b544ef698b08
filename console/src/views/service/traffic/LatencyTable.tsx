/** Latency of each route and of its phases, with the 95th percentile as a bar. */
import { Table, Text } from "@mantine/core";
import { Fragment } from "react";
import type { Schemas } from "../../../api/client";
import { integer, milliseconds } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Bar } from "./Bar";
import type { Traffic } from "./rates";
import { ScrollTable } from "../../../ui/ScrollTable";

type Latency = Schemas["Latency"];

export function LatencyTable({ traffic: { routes = [], phases = [] } }: { traffic: Traffic }) {
  const used = routes.filter(({ count }) => count > 0);
  if (used.length === 0) return <Text size="sm">No requests since the replicas started.</Text>;
  const longest = Math.max(1e-9, ...used.map(({ p95_ms }) => p95_ms ?? 0));
  return (
    <ScrollTable
      label="Table of latency by route and phase"
      minWidth={560}
      columns={["Route, phase", "Requests", "Mean", "p50", "p95", "p99", { head: "", w: 70 }]}
      verticalSpacing={3}
      horizontalSpacing={6}
      fz={13}
      style={{ whiteSpace: "nowrap" }}
    >
      {used.map((route) => (
        <Fragment key={route.route}>
          <LatencyRow label={visible(route.route)} latency={route} longest={longest} isRoute />
          {phases
            .filter((phase) => phase.route === route.route && phase.count > 0)
            .map((phase) => (
              <LatencyRow key={phase.phase} label={visible(phase.phase)} latency={phase} longest={longest} />
            ))}
        </Fragment>
      ))}
    </ScrollTable>
  );
}

function LatencyRow({
  label,
  latency,
  longest,
  isRoute = false,
}: {
  label: string;
  latency: Latency;
  longest: number;
  isRoute?: boolean;
}) {
  const { count, mean_ms, p50_ms, p95_ms, p99_ms } = latency;
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={isRoute ? 600 : 400} pl={isRoute ? undefined : "lg"}>
        {label}
      </Table.Th>
      <Table.Td>{integer(count)}</Table.Td>
      <Table.Td>{milliseconds(mean_ms)}</Table.Td>
      <Table.Td>{milliseconds(p50_ms)}</Table.Td>
      <Table.Td>{milliseconds(p95_ms)}</Table.Td>
      <Table.Td>{milliseconds(p99_ms)}</Table.Td>
      <Table.Td>
        <Bar share={(p95_ms ?? 0) / longest} color={isRoute ? undefined : "var(--mantine-color-gray-5)"} />
      </Table.Td>
    </Table.Tr>
  );
}
