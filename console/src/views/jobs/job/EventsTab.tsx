import { Button, Code, Switch, Table, Text } from "@mantine/core";
import { useCallback, useMemo, useRef, useState } from "react";
import type { Schemas } from "../../../api/client";
import { useStream } from "../../../api/useStream";
import { dateTime } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Empty } from "../../../ui/states";
import type { TabProps } from "../JobPage";

const KEPT = 5_000;
const SHOWN = 200;
/** Reports of progress are most of all events, and are left out at first. */
const PROGRESS = ["progress", "evaluation.progress"];
const KEPT_PROGRESS = 1_000;

/** What has happened to the job, newest first, while it happens. */
export default function EventsTab({ job, hasEnded }: TabProps) {
  const { rare, progress } = useEvents(job.id, hasEnded);
  const [shown, setShown] = useState(SHOWN);
  const [withProgress, setWithProgress] = useState(false);
  const events = useMemo(() => (withProgress ? [...rare, ...progress].sort((a, b) => a.id - b.id) : rare), [rare, progress, withProgress]);
  if (rare.length === 0) return <Empty title="No events yet" />;
  return (
    <>
      <Switch size="xs" mb="xs" label="Show progress" checked={withProgress} onChange={(event) => setWithProgress(event.currentTarget.checked)} />
      <Table.ScrollContainer minWidth={640} scrollAreaProps={{ viewportProps: { tabIndex: 0, role: "region", "aria-label": "Table of events" } }}>
        <Table aria-label="Events">
          <Table.Thead>
            <Table.Tr>
              {["Time", "Event", "Attempt", "Stage", "Message"].map((name) => (
                <Table.Th key={name} scope="col">
                  {name}
                </Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {events.slice(-shown).toReversed().map((event) => (
              <EventRow key={event.id} event={event} />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {events.length > shown && (
        <Button mt="sm" size="xs" variant="default" onClick={() => setShown(shown + SHOWN)}>
          Show older events
        </Button>
      )}
    </>
  );
}

function EventRow({ event }: { event: Schemas["Event"] }) {
  const data = Object.keys(event.data).length === 0 ? "" : JSON.stringify(event.data);
  return (
    <Table.Tr style={{ verticalAlign: "top" }}>
      <Table.Td style={{ whiteSpace: "nowrap" }}>{dateTime(event.created_at)}</Table.Td>
      <Table.Th scope="row" fw={400} style={{ whiteSpace: "nowrap" }}>
        <Code>{visible(event.type, 80)}</Code>
      </Table.Th>
      <Table.Td>{event.attempt ?? ""}</Table.Td>
      <Table.Td>{event.stage == null ? "" : event.stage + 1}</Table.Td>
      <Table.Td>
        <Text size="sm" className="user-text">
          {visible(event.message, 500)}
        </Text>
        {data !== "" && (
          <Text size="xs" c="dimmed" ff="monospace" className="user-text" lineClamp={2} title={visible(data, 2000)}>
            {visible(data, 500)}
          </Text>
        )}
      </Table.Td>
    </Table.Tr>
  );
}

type Events = readonly Schemas["Event"][];

function useEvents(jobId: string, hasEnded: boolean): { rare: Events; progress: Events } {
  const [events, setEvents] = useState<{ rare: Events; progress: Events }>({ rare: [], progress: [] });
  const last = useRef<number | undefined>(undefined);
  const onEvents = useCallback((more: Events) => {
    const fresh = more.filter((event) => event.id > (last.current ?? 0));
    last.current = more.at(-1)?.id ?? last.current;
    const isProgress = (event: Schemas["Event"]) => PROGRESS.includes(event.type);
    setEvents(({ rare, progress }) => ({
      rare: [...rare, ...fresh.filter((event) => !isProgress(event))].slice(-KEPT),
      progress: [...progress, ...fresh.filter(isProgress)].slice(-KEPT_PROGRESS),
    }));
  }, []);
  useStream<Schemas["Event"]>({ url: `/v1/jobs/${encodeURIComponent(jobId)}/events`, after: () => last.current, onEvents, isComplete: () => hasEnded });
  return events;
}
