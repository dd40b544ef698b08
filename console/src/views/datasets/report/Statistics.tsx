/** Statistics of captions and images, as tables that stand beside each other. */
import { Box, Group, Progress, Stack, Table, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import type { Schemas } from "../../../api/client";
import { compact, integer, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { DataTable, right } from "../../../ui/ScrollTable";

export function CaptionStatistics({ stats }: { stats: Schemas["CaptionStatistics"] }) {
  return (
    <Section title="Captions">
      <Rows
        rows={[
          ["Captions", integer(stats.captions)],
          ["Different texts", integer(stats.distinct)],
          ["Captions of a sample, mean", significant(stats.per_sample)],
          ...ordered(Object.keys(stats.characters)).map((name): [string, string] => [
            `Characters, ${name}`,
            significant(stats.characters[name]),
          ]),
        ]}
      />
      {Object.keys(stats.languages).length > 0 && <Shares title="By language" shares={asShares(stats.languages)} />}
    </Section>
  );
}

export function ImageSizes({ sizes }: { sizes: Schemas["ImageSizes"] }) {
  const names = ordered(Object.keys(sizes.width));
  return (
    <Section title="Image sizes">
      <DataTable fz="sm" horizontalSpacing={6} columns={["Pixels", ...names.map(right)]}>
        {(["width", "height"] as const).map((side) => (
          <Table.Tr key={side}>
            <Table.Th scope="row" fw={400}>
              {side === "width" ? "Width" : "Height"}
            </Table.Th>
            {names.map((name) => (
              <Table.Td key={name} ta="right">
                {compact(sizes[side][name])}
              </Table.Td>
            ))}
          </Table.Tr>
        ))}
      </DataTable>
      <Text size="sm">{percent(sizes.smaller_than_input)} are smaller than the student's input, and enlarged.</Text>
    </Section>
  );
}

const MEASURES = ["min", "p5", "mean", "median", "p95", "max"];

/** Names of statistics from the smallest value to the largest; unknown ones come first. */
function ordered(names: string[]): string[] {
  return [...names].sort((a, b) => MEASURES.indexOf(a) - MEASURES.indexOf(b));
}

/** Shares of 1 by name, the largest first. */
export function Shares({ title, shares }: { title: string; shares: Record<string, number> }) {
  const largest = Object.entries(shares).sort(([, a], [, b]) => b - a);
  return (
    <Section title={title}>
      {largest.map(([name, share]) => (
        <Group key={name} gap="xs" wrap="nowrap">
          <Text size="sm" w={90} truncate className="user-text">
            {name === "und" ? "too short" : visible(name, 40)}
          </Text>
          <Progress value={100 * share} flex={1} aria-label={`${name}: ${percent(share)}`} />
          <Text size="sm" w={60} ta="right">
            {percent(share)}
          </Text>
        </Group>
      ))}
    </Section>
  );
}

export function asShares(counts: Record<string, number>): Record<string, number> {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0) || 1;
  return Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, count / total]));
}

export function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Box>
      <Title order={3} size="h5" mb={4}>
        {title}
      </Title>
      <Stack gap={6}>{children}</Stack>
    </Box>
  );
}

/** Names and values in two columns. */
export function Rows({ rows }: { rows: [string, ReactNode][] }) {
  return (
    <Table fz="sm" withRowBorders={false} verticalSpacing={3} horizontalSpacing={0}>
      <Table.Tbody>
        {rows.map(([name, value]) => (
          <Table.Tr key={name}>
            <Table.Th scope="row" fw={400} pr="md">
              {name}
            </Table.Th>
            <Table.Td ta="right" className="user-text">
              {value}
            </Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
