import { ActionIcon, Button, Code, Stack, Table, Text, Tooltip } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import { api, ask } from "../../../api/client";
import { bytes, dateTime, integer } from "../../../app/format";
import { Confirm } from "../../../ui/Confirm";
import { TextLink } from "../../../ui/links";
import { done } from "../../../ui/notify";
import { ErrorState, Loading } from "../../../ui/states";
import { useChange, useMayWrite, useVersions, type Dataset, type DatasetVersion } from "../queries";
import { Aliases } from "./Aliases";
import { ACTIONS, right, ScrollTable } from "../../../ui/ScrollTable";

const NUMBERS = ["Samples", "Pairs for training", "Shards", "Size"];
const COLUMNS = ["Version", "Aliases", ...NUMBERS.map(right), "Created", "Digest"];

/** The versions of a data set, newest first, and the aliases that point at them. */
export function VersionsTab({ dataset }: { dataset: Dataset }) {
  const versions = useVersions(dataset.name, dataset.latest);
  const [deleted, setDeleted] = useState<number | null>(null);
  const mayWrite = useMayWrite();
  if (versions.data === undefined)
    return versions.isError ? <ErrorState error={versions.error} onRetry={() => void versions.refetch()} /> : <Loading />;
  return (
    <Stack>
      <ScrollTable label="Table of versions" minWidth={900} columns={[...COLUMNS, mayWrite && ACTIONS]}>
        {versions.data.pages
          .flatMap((page) => page.items)
          .map((version) => (
            <Row key={version.version} version={version} onDelete={mayWrite ? setDeleted : undefined} />
          ))}
      </ScrollTable>
      {versions.hasNextPage && (
        <Button variant="default" onClick={() => void versions.fetchNextPage()} loading={versions.isFetchingNextPage}>
          Show more
        </Button>
      )}
      <DeleteVersion name={dataset.name} version={deleted} onClose={() => setDeleted(null)} />
    </Stack>
  );
}

function Row({ version, onDelete }: { version: DatasetVersion; onDelete: ((version: number) => void) | undefined }) {
  const { name, version: number } = version;
  return (
    <Table.Tr>
      <Table.Th scope="row">
        <TextLink to="/datasets/$name" params={{ name }} search={{ version: String(number) }} inherit>
          {name}@{number}
        </TextLink>
      </Table.Th>
      <Table.Td>
        <Aliases version={version} />
      </Table.Td>
      <Table.Td ta="right">{integer(version.samples)}</Table.Td>
      <Table.Td ta="right">{integer(version.pairs)}</Table.Td>
      <Table.Td ta="right">{integer(version.shards)}</Table.Td>
      <Table.Td ta="right">{bytes(version.bytes)}</Table.Td>
      <Table.Td>{dateTime(version.created_at)}</Table.Td>
      <Table.Td>
        <Code title={version.digest}>{version.digest.slice(0, 12)}</Code>
      </Table.Td>
      {onDelete !== undefined && (
        <Table.Td ta="right">
          {version.actions.includes("delete") && (
            <Tooltip label="Delete this version">
              <ActionIcon variant="subtle" color="gray" onClick={() => onDelete(number)} aria-label={`Delete ${name}@${number}`}>
                <IconTrash size={16} />
              </ActionIcon>
            </Tooltip>
          )}
        </Table.Td>
      )}
    </Table.Tr>
  );
}

function DeleteVersion({ name, version, onClose }: { name: string; version: number | null; onClose: () => void }) {
  const removal = useChange(
    (given: number) =>
      ask(api.DELETE("/v1/datasets/{name}/versions/{version}", { params: { path: { name, version: String(given) } } })),
    (_, given) => {
      done(`${name}@${given} is deleted`);
      onClose();
    },
  );
  const close = () => {
    removal.reset();
    onClose();
  };
  return (
    <Confirm
      title={`Delete ${name}@${version ?? ""}?`}
      action="Delete"
      opened={version !== null}
      isPending={removal.isPending}
      error={removal.error}
      onConfirm={() => version !== null && removal.mutate(version)}
      onClose={close}
    >
      <Text size="sm">Its index and its report are removed. The shards are not touched.</Text>
    </Confirm>
  );
}
