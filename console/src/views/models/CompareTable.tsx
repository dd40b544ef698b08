import { Badge, Checkbox, Stack, Table, Text } from "@mantine/core";
import { useMemo, useState } from "react";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { columnsOf, compareGroups, type Cell, type Column, type CompareGroup } from "./compareRows";
import type { Compared } from "./tradeoff";
import { ScrollRegion, TableHead } from "../../ui/ScrollTable";

/** Facts and scores: the best version of a row is bold, with the difference from the first one. */
export function CompareTable({ models }: { models: Compared[] }) {
  const [onlyDifferences, setOnlyDifferences] = useState(false);
  const columns = useMemo(() => columnsOf(models), [models]);
  const groups = useMemo(() => compareGroups(columns), [columns]);
  const shown = onlyDifferences
    ? groups.map((group) => ({ ...group, rows: group.rows.filter((row) => row.differs) })).filter(({ rows }) => rows.length > 0)
    : groups;
  return (
    <Stack gap="sm">
      <Checkbox
        label="Only what differs"
        checked={onlyDifferences}
        onChange={(event) => setOnlyDifferences(event.currentTarget.checked)}
      />
      <ScrollRegion label="Table of facts and scores" minWidth={170 + 130 * columns.length}>
        <Table withColumnBorders={false}>
          <TableHead
            columns={[
              { head: "Fact or metric", w: 170 },
              ...columns.map((column) => ({ head: <ColumnHead column={column} />, ta: "right" as const })),
            ]}
          />
          {shown.map((group) => (
            <GroupRows key={group.title} group={group} columns={columns} />
          ))}
        </Table>
      </ScrollRegion>
      <Text size="xs" c="dimmed">
        Bold: the best version of the row. Small: the difference from the first version. MACs are those of an image and a text.
      </Text>
    </Stack>
  );
}

function ColumnHead({ column }: { column: Column }) {
  if (column.model === null) {
    return (
      <>
        <span className="user-text">{visible(column.label)}</span>{" "}
        <Badge variant="default" radius="sm" tt="none" size="sm" fw={500}>
          teacher
        </Badge>
      </>
    );
  }
  return (
    <TextLink
      inherit
      to="/models/$name"
      params={{ name: column.model.name }}
      search={{ version: String(column.model.version) }}
      className="user-text"
    >
      {visible(column.label)}
    </TextLink>
  );
}

function GroupRows({ group, columns }: { group: CompareGroup; columns: Column[] }) {
  return (
    <Table.Tbody>
      <Table.Tr>
        <Table.Th colSpan={columns.length + 1} scope="colgroup" pt="md" className="user-text">
          {visible(group.title)}
        </Table.Th>
      </Table.Tr>
      {group.rows.map((row) => (
        <Table.Tr key={row.key}>
          <Table.Th scope="row" fw={400}>
            {row.label}
          </Table.Th>
          {row.cells.map((cell, place) => (
            <Value key={columns[place]!.key} cell={cell} />
          ))}
        </Table.Tr>
      ))}
    </Table.Tbody>
  );
}

function Value({ cell }: { cell: Cell }) {
  return (
    <Table.Td ta="right" fw={cell.isBest ? 700 : 400}>
      {cell.text}
      {cell.change !== "" && (
        <Text size="xs" fw={400}>
          {cell.change}
        </Text>
      )}
    </Table.Td>
  );
}
