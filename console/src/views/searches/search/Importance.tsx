import { Table } from "@mantine/core";
import { percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { DataTable, right } from "../../../ui/ScrollTable";
import { Section } from "../../models/Section";
import { Bar } from "../../service/traffic/Bar";

/** The share of the variation between trials that each varied setting explains, the most important first. */
export function Importance({ importance }: { importance: Record<string, number> }) {
  const rows = Object.entries(importance).sort(([, a], [, b]) => b - a);
  if (rows.length === 0) return null;
  return (
    <Section title="Importance of the settings">
      <DataTable columns={["Setting", right("Share of the variation"), { head: "", w: "45%" }]} fz="sm">
        {rows.map(([path, share]) => (
          <Table.Tr key={path}>
            <Table.Th scope="row" fw={400} className="user-text">
              {visible(path, 100)}
            </Table.Th>
            <Table.Td ta="right">{percent(share, 0)}</Table.Td>
            <Table.Td>
              <Bar share={share} />
            </Table.Td>
          </Table.Tr>
        ))}
      </DataTable>
    </Section>
  );
}
