import { Button, Code, Table, Text } from "@mantine/core";
import { useState } from "react";
import { dateTime } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ScrollTable } from "../../../ui/ScrollTable";
import type { SearchEvent } from "../requests";

const SHOWN = 20;

/** What has happened to the search, newest first, while it happens. */
export function Events({ events }: { events: readonly SearchEvent[] }) {
  const [shown, setShown] = useState(SHOWN);
  if (events.length === 0) {
    return (
      <Text size="sm" c="dimmed">
        No events yet.
      </Text>
    );
  }
  return (
    <>
      <ScrollTable label="Table of events" minWidth={560} columns={["Time", "Event", "Trial", "Message"]} aria-label="Events">
        {events
          .slice(-shown)
          .toReversed()
          .map((event) => (
            <Table.Tr key={event.id} style={{ verticalAlign: "top" }}>
              <Table.Td style={{ whiteSpace: "nowrap" }}>{dateTime(event.created_at)}</Table.Td>
              <Table.Th scope="row" fw={400} style={{ whiteSpace: "nowrap" }}>
                <Code>{visible(event.type, 80)}</Code>
              </Table.Th>
              <Table.Td>{event.trial ?? ""}</Table.Td>
              <Table.Td className="user-text">{visible(event.message, 500)}</Table.Td>
            </Table.Tr>
          ))}
      </ScrollTable>
      {events.length > shown && (
        <Button mt="sm" size="xs" variant="default" onClick={() => setShown(shown + 10 * SHOWN)}>
          Show older events
        </Button>
      )}
    </>
  );
}
