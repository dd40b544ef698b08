import { ActionIcon, Group, Progress, Stack, Table, Text, Tooltip } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask } from "../../api/client";
import { ago, dateTime, integer, percent } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { StateBadge } from "../../ui/states";
import { DatasetFailure } from "./DatasetFailure";
import { DeleteDataset } from "./DeleteDataset";
import { isSettled, useMayWrite, type Dataset } from "./queries";
import { ACTIONS, right, ScrollTable } from "../../ui/ScrollTable";

export function DatasetTable({ datasets }: { datasets: Dataset[] }) {
  const [deleted, setDeleted] = useState<string | null>(null);
  const mayWrite = useMayWrite();
  return (
    <>
      <ScrollTable
        label="Table of data sets"
        minWidth={640}
        highlightOnHover
        columns={["Name", "State", "Latest version", right("Samples"), "Changed", mayWrite && ACTIONS]}
      >
        {datasets.map((dataset) => (
          <Row key={dataset.name} dataset={dataset} onDelete={mayWrite ? setDeleted : undefined} />
        ))}
      </ScrollTable>
      <DeleteDataset name={deleted} onClose={() => setDeleted(null)} />
    </>
  );
}

function Row({ dataset, onDelete }: { dataset: Dataset; onDelete: ((name: string) => void) | undefined }) {
  const aliases = Object.entries(dataset.aliases).map(([alias, version]) => `${alias} = ${version}`);
  return (
    <Table.Tr>
      <Table.Th scope="row">
        <TextLink to="/datasets/$name" params={{ name: dataset.name }} inherit>
          {visible(dataset.name)}
        </TextLink>
      </Table.Th>
      <Table.Td miw={200}>
        <State dataset={dataset} />
      </Table.Td>
      <Table.Td>
        {dataset.latest == null ? "none yet" : dataset.latest}
        {aliases.length > 0 && (
          <Text size="xs" c="dimmed">
            {aliases.join(", ")}
          </Text>
        )}
      </Table.Td>
      <Table.Td ta="right">
        <Samples dataset={dataset} />
      </Table.Td>
      <Table.Td>
        <span title={dateTime(dataset.updated_at)}>{ago(dataset.updated_at)}</span>
      </Table.Td>
      {onDelete !== undefined && (
        <Table.Td ta="right">
          {dataset.actions.includes("delete") && (
            <Tooltip label={`Delete ${dataset.name}`}>
              <ActionIcon
                variant="subtle"
                color="gray"
                onClick={() => onDelete(dataset.name)}
                aria-label={`Delete ${dataset.name}`}
              >
                <IconTrash size={16} />
              </ActionIcon>
            </Tooltip>
          )}
        </Table.Td>
      )}
    </Table.Tr>
  );
}

export function State({ dataset }: { dataset: Dataset }) {
  return (
    <Stack gap={4}>
      <Group gap="xs">
        <StateBadge state={dataset.state} />
        {!isSettled(dataset) && dataset.message !== "" && (
          <Text size="xs" className="user-text">
            {visible(dataset.message)}
          </Text>
        )}
      </Group>
      {dataset.state === "registering" && (
        <Group gap="xs" wrap="nowrap" maw={420}>
          <Progress miw={120} value={100 * dataset.progress} flex={1} aria-label={`Progress of ${dataset.name}`} />
          <Text size="xs">{percent(dataset.progress, 0)}</Text>
        </Group>
      )}
      <DatasetFailure error={dataset.error ?? null} isShort />
    </Stack>
  );
}

/** The samples of the newest version; the list of data sets does not have them. */
function Samples({ dataset: { name, latest } }: { dataset: Dataset }) {
  const version = useQuery({
    queryKey: ["datasets", name, "version", "latest", latest],
    queryFn: () =>
      ask(api.GET("/v1/datasets/{name}/versions/{version}", { params: { path: { name, version: String(latest) } } })),
    enabled: latest != null,
    staleTime: Infinity,
  });
  return <>{integer(version.data?.samples)}</>;
}
