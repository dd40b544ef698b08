import { Button, Group, Popover, Progress, Stack, Table, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { bytes, compact, integer, milliseconds, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ButtonLink } from "../../../ui/links";
import { StateBadge } from "../../../ui/states";

type Index = Schemas["Index"];

export function IndexRow({ item, onDelete }: { item: Index; onDelete: () => void }) {
  const isUsable = item.state === "ready" || item.state === "updating";
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={600} className="user-text">
        {visible(item.name)}
      </Table.Th>
      <Table.Td miw={110}>
        <State item={item} />
      </Table.Td>
      <Table.Td className="user-text">{visible(item.model)}</Table.Td>
      <Table.Td>{integer(item.count)}</Table.Td>
      <Table.Td>
        {[item.kind, item.codes === "float" ? "" : item.codes, item.store === "pgvector" ? "pgvector" : ""]
          .filter(Boolean)
          .join(", ")}
      </Table.Td>
      <Table.Td>{item.recall == null ? (isUsable ? "all" : "–") : percent(item.recall)}</Table.Td>
      <Table.Td>{bytes(item.bytes)}</Table.Td>
      <Table.Td>{milliseconds(item.search_ms)}</Table.Td>
      <Table.Td>
        <Updates item={item} />
      </Table.Td>
      <Table.Td>
        <Group gap={4} wrap="nowrap">
          {isUsable && (
            <ButtonLink
              size="compact-sm"
              variant="light"
              to="/playground"
              search={{ mode: "search", index: item.name }}
              aria-label={`Search ${item.name}`}
            >
              Search
            </ButtonLink>
          )}
          {item.actions.includes("delete") && (
            <Button size="compact-sm" variant="default" onClick={onDelete} aria-label={`Delete ${item.name}`}>
              Delete
            </Button>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

function State({ item }: { item: Index }) {
  const { state, progress = 0, message } = item;
  return (
    <Stack gap={4} maw={240}>
      <StateBadge state={state} />
      {state === "building" && (
        <Progress value={100 * progress} size="sm" aria-label={`Build of ${item.name}: ${percent(progress, 0)}`} />
      )}
      {message !== undefined && message !== "" && (
        <Text size="xs" className="user-text">
          {visible(message, 300)}
        </Text>
      )}
    </Stack>
  );
}

/** Accepted updates, those that are still applied, and the items that could not be embedded. */
function Updates({ item }: { item: Index }) {
  const { updates = 0, pending_updates = 0, rejected = [] } = item;
  return (
    <Stack gap={2} align="flex-start">
      <Text size="sm">
        {updates === 0
          ? "none"
          : pending_updates === 0
            ? compact(updates)
            : `${compact(updates)}, ${compact(pending_updates)} pending`}
      </Text>
      {rejected.length > 0 && (
        <Popover width={360} withArrow withRoles>
          <Popover.Target>
            <Button size="compact-xs" variant="light" color="orange">
              {rejected.length} rejected
            </Button>
          </Popover.Target>
          <Popover.Dropdown>
            <Stack
              gap={4}
              mah={240}
              style={{ overflow: "auto" }}
              tabIndex={0}
              role="region"
              aria-label={`Rejected items of ${item.name}`}
            >
              {rejected.map((one, place) => (
                <Text key={place} size="xs" className="user-text">
                  <strong>{visible(one.id, 80)}</strong> (update {one.update}): {visible(one.reason, 300)}
                </Text>
              ))}
            </Stack>
          </Popover.Dropdown>
        </Popover>
      )}
    </Stack>
  );
}
