/** The share of queries that each version has answered, beside the weight that the canary should have. */
import { Table, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { integer, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Bar } from "./Bar";
import { DataTable } from "../../../ui/ScrollTable";

export function ModelShares({ models, canary }: { models: Schemas["ModelShare"][]; canary: Schemas["Canary"] }) {
  return (
    <>
      <Text size="sm" mb="xs" className="user-text">
        {visible(canary.model)} should answer {percent(canary.weight, 0)} of the queries without a version.
      </Text>
      {models.length > 0 && (
        <DataTable columns={["Model", "Queries", "Share", { head: "", w: "30%" }]} verticalSpacing={3} fz="sm">
          {models.map(({ model, requests, share }) => (
            <Table.Tr key={model}>
              <Table.Th scope="row" fw={400} className="user-text">
                {visible(model)}
              </Table.Th>
              <Table.Td>{integer(requests)}</Table.Td>
              <Table.Td>{percent(share)}</Table.Td>
              <Table.Td>
                <Bar share={share} />
              </Table.Td>
            </Table.Tr>
          ))}
        </DataTable>
      )}
    </>
  );
}
