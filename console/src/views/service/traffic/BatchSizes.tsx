/** How many images and texts are computed together. */
import { SimpleGrid, Table, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { integer, significant } from "../../../app/format";
import { Bar } from "./Bar";
import { bucketsOf } from "./buckets";
import { DataTable } from "../../../ui/ScrollTable";

type Sizes = Schemas["BatchSizes"];

export function BatchSizes({ batches }: { batches: Sizes[] }) {
  const used = batches.filter((one) => one.batches > 0);
  if (used.length === 0) return <Text size="sm">No batches yet.</Text>;
  return (
    <SimpleGrid cols={{ base: 1, sm: used.length, lg: 1, xl: used.length }} spacing="lg">
      {used.map((one) => (
        <Histogram key={one.kind} sizes={one} />
      ))}
    </SimpleGrid>
  );
}

function Histogram({ sizes }: { sizes: Sizes }) {
  const buckets = bucketsOf(sizes.buckets ?? []);
  const most = Math.max(1, ...buckets.map(({ count }) => count));
  return (
    <div>
      <Text size="sm" mb={4}>
        {sizes.kind}: {significant(sizes.mean)} in a batch on average
      </Text>
      <DataTable
        columns={["Size", "Batches", { head: "", w: "50%" }]}
        verticalSpacing={2}
        horizontalSpacing="xs"
        withRowBorders={false}
        fz="xs"
        style={{ whiteSpace: "nowrap" }}
      >
        {buckets.map(({ label, count }) => (
          <Table.Tr key={label}>
            <Table.Th scope="row" fw={400}>
              {label}
            </Table.Th>
            <Table.Td>{integer(count)}</Table.Td>
            <Table.Td>
              <Bar share={count / most} />
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
    </div>
  );
}
