/** Requests by route, status and model, with their rates. */
import { Table, Text } from "@mantine/core";
import { integer, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ratedCounts, type Traffic } from "./rates";
import { ScrollTable } from "../../../ui/ScrollTable";

export function RequestTable({ answers }: { answers: Traffic[] }) {
  const counts = ratedCounts(answers);
  if (counts.length === 0) return <Text size="sm">No requests since the replicas started.</Text>;
  return (
    <ScrollTable
      label="Table of requests by route, status and model"
      minWidth={420}
      columns={["Route", "Status", "Model", "Requests", "Rate"]}
      verticalSpacing={3}
      fz="sm"
      style={{ whiteSpace: "nowrap" }}
    >
      {counts.map(({ route, status, model, requests, rate }) => (
        <Table.Tr key={`${route} ${status} ${model}`}>
          <Table.Th scope="row" fw={400}>
            {visible(route)}
          </Table.Th>
          <Table.Td c={status >= 500 ? "light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))" : undefined}>
            {status}
          </Table.Td>
          <Table.Td className="user-text">{visible(model) || "–"}</Table.Td>
          <Table.Td>{integer(requests)}</Table.Td>
          <Table.Td>{rate === null ? "–" : `${significant(rate, 2)}/s`}</Table.Td>
        </Table.Tr>
      ))}
    </ScrollTable>
  );
}
