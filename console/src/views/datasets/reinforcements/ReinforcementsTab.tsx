import { ActionIcon, Button, Code, CopyButton, Group, Progress, Stack, Table, Text, Tooltip } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconCopy, IconTrash } from "@tabler/icons-react";
import { useState } from "react";
import { api, ask } from "../../../api/client";
import { ago, bytes, compact, dateTime, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Confirm } from "../../../ui/Confirm";
import { done } from "../../../ui/notify";
import { Empty, ErrorState, Loading, StateBadge } from "../../../ui/states";
import { DatasetFailure } from "../DatasetFailure";
import { isTerminal, useChange, useReinforcements, type DatasetVersion, type Reinforcement } from "../queries";
import { ReinforceModal } from "./ReinforceModal";
import { ACTIONS, right, ScrollTable, type Columns } from "../../../ui/ScrollTable";

/** The stored embeddings of teachers, with which jobs train without a teacher in their steps. */
export function ReinforcementsTab({ version }: { version: DatasetVersion }) {
  const reinforcements = useReinforcements(version);
  const [isOpen, { open, close }] = useDisclosure();
  const found = reinforcements.data?.pages.flatMap((page) => page.items);
  const create = version.actions.includes("reinforce") && <Button onClick={open}>Reinforce this version</Button>;
  return (
    <Stack align="stretch">
      {found === undefined ? (
        reinforcements.isError ? (
          <ErrorState error={reinforcements.error} onRetry={() => void reinforcements.refetch()} />
        ) : (
          <Loading />
        )
      ) : found.length === 0 ? (
        <Empty title="No reinforcement" action={create}>
          A reinforcement stores what teachers compute for several views of every image and for every caption. A job that names it
          trains without a teacher in its steps.
        </Empty>
      ) : (
        <>
          <Group>{create}</Group>
          <ReinforcementTable found={found} version={version} />
        </>
      )}
      {reinforcements.hasNextPage && (
        <Button variant="default" onClick={() => void reinforcements.fetchNextPage()} loading={reinforcements.isFetchingNextPage}>
          Show more
        </Button>
      )}
      <ReinforceModal version={version} opened={isOpen} onClose={close} />
    </Stack>
  );
}

const NUMBERS = ["Views of each image", "Views", "Texts", "Size"];
const COLUMNS: Columns = ["Teachers", "State", ...NUMBERS.map(right), "Created", ACTIONS];

function ReinforcementTable({ found, version }: { found: Reinforcement[]; version: DatasetVersion }) {
  const [deleted, setDeleted] = useState<string | null>(null);
  return (
    <>
      <ScrollTable label="Table of reinforcements" minWidth={820} columns={COLUMNS}>
        {found.map((each) => (
          <Row key={each.id} each={each} onDelete={setDeleted} />
        ))}
      </ScrollTable>
      <DeleteReinforcement id={deleted} version={version} onClose={() => setDeleted(null)} />
    </>
  );
}

function Row({ each, onDelete }: { each: Reinforcement; onDelete: (id: string) => void }) {
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={400}>
        <Text size="sm" className="user-text">
          {visible(each.teachers.join(", "), 300)}
        </Text>
        <Group gap={4} wrap="nowrap">
          <Code>{each.id}</Code>
          <CopyButton value={each.id}>
            {({ copied, copy }) => (
              <Tooltip label={copied ? "Copied" : "Copy the id for a spec"}>
                <ActionIcon size="sm" variant="subtle" color="gray" onClick={copy} aria-label={`Copy ${each.id}`}>
                  <IconCopy size={14} />
                </ActionIcon>
              </Tooltip>
            )}
          </CopyButton>
        </Group>
      </Table.Th>
      <Table.Td miw={160}>
        <StateBadge state={each.state} />
        {!isTerminal(each) && (
          <Group gap="xs" wrap="nowrap">
            <Progress value={100 * each.progress} flex={1} aria-label={`Progress of ${each.id}`} />
            <Text size="xs">{percent(each.progress, 0)}</Text>
          </Group>
        )}
        {each.message !== "" && (
          <Text size="xs" className="user-text">
            {visible(each.message, 300)}
          </Text>
        )}
        <DatasetFailure error={each.error ?? null} isShort />
      </Table.Td>
      <Table.Td ta="right">{each.augmentations}</Table.Td>
      <Table.Td ta="right">{compact(each.views || null)}</Table.Td>
      <Table.Td ta="right">{compact(each.texts || null)}</Table.Td>
      <Table.Td ta="right">{bytes(each.bytes || null)}</Table.Td>
      <Table.Td>
        <span title={dateTime(each.created_at)}>{ago(each.created_at)}</span>
      </Table.Td>
      <Table.Td>
        {each.actions.includes("delete") && (
          <Tooltip label="Delete">
            <ActionIcon variant="subtle" color="gray" onClick={() => onDelete(each.id)} aria-label={`Delete ${each.id}`}>
              <IconTrash size={16} />
            </ActionIcon>
          </Tooltip>
        )}
      </Table.Td>
    </Table.Tr>
  );
}

function DeleteReinforcement({ id, version, onClose }: { id: string | null; version: DatasetVersion; onClose: () => void }) {
  const path = { name: version.name, version: String(version.version) };
  const removal = useChange(
    (reinforcement: string) =>
      ask(
        api.DELETE("/v1/datasets/{name}/versions/{version}/reinforcements/{reinforcement}", {
          params: { path: { ...path, reinforcement } },
        }),
      ),
    () => {
      done("The reinforcement is being deleted");
      onClose();
    },
  );
  const close = () => {
    removal.reset();
    onClose();
  };
  return (
    <Confirm
      title="Delete the reinforcement?"
      action="Delete"
      opened={id !== null}
      isPending={removal.isPending}
      error={removal.error}
      onConfirm={() => id !== null && removal.mutate(id)}
      onClose={close}
    >
      <Text size="sm">
        The embeddings of <Code>{id}</Code> are removed, and a job that computes them is stopped.
      </Text>
    </Confirm>
  );
}
