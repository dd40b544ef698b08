import { ActionIcon, Button, Code, Stack, Table, Text, Tooltip } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import { api, ask } from "../../../api/client";
import { bytes, dateTime, integer } from "../../../app/format";
import { ActionsHeader } from "../../../ui/ActionsHeader";
import { Confirm } from "../../../ui/Confirm";
import { TextLink } from "../../../ui/links";
import { done } from "../../../ui/notify";
import { ErrorState, Loading } from "../../../ui/states";
import { useChange, useMayWrite, useVersions, type Dataset, type DatasetVersion } from "../queries";
import { Aliases } from "./Aliases";

const COLUMNS = ["Version", "Aliases", "Samples", "Pairs for training", "Shards", "Size", "Created", "Digest"];

/** The versions of a data set, newest first, and the aliases that point at them. */
export function VersionsTab({ dataset }: { dataset: Dataset }) {
  const versions = useVersions(dataset.name, dataset.latest);
  const [deleted, setDeleted] = useState<number | null>(null);
  const mayWrite = useMayWrite();
  if (versions.data === undefined)
    return versions.isError ? <ErrorState error={versions.error} onRetry={() => void versions.refetch()} /> : <Loading />;
  return (
    <Stack>
      <Table.ScrollContainer minWidth={900}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              {COLUMNS.map((name, place) => (
                <Table.Th key={name} scope="col" ta={place >= 2 && place <= 5 ? "right" : undefined}>
                  {name}
                </Table.Th>
              ))}
              {mayWrite && <ActionsHeader />}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {versions.data.pages
              .flatMap((page) => page.items)
              .map((version) => (
                <Row key={version.version} version={version} onDelete={mayWrite ? setDeleted : undefined} />
              ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
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
