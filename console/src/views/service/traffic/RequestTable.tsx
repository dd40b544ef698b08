/** Requests by route, status and model, with their rates. */
import { Table, Text } from "@mantine/core";
import { integer, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ratedCounts, type Traffic } from "./rates";

export function RequestTable({ answers }: { answers: Traffic[] }) {
  const counts = ratedCounts(answers);
  if (counts.length === 0) return <Text size="sm">No requests since the replicas started.</Text>;
  return (
    <Table.ScrollContainer
      minWidth={420}
      scrollAreaProps={{
        viewportProps: { tabIndex: 0, role: "region", "aria-label": "Table of requests by route, status and model" },
      }}
    >
      <Table verticalSpacing={3} fz="sm" style={{ whiteSpace: "nowrap" }}>
        <Table.Thead>
          <Table.Tr>
            {["Route", "Status", "Model", "Requests", "Rate"].map((title) => (
              <Table.Th key={title} scope="col">
                {title}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
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
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
