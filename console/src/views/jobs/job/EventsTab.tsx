import { Button, Code, Switch, Table, Text } from "@mantine/core";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Schemas } from "../../../api/client";
import { useStream } from "../../../api/useStream";
import { dateTime } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Empty } from "../../../ui/states";
import type { TabProps } from "../JobPage";
import { ScrollTable } from "../../../ui/ScrollTable";

/** Events that the view begins with. */
const TAIL = 500;
const KEPT = 5_000;
const SHOWN = 200;
/** Reports of progress are most of all events, and are left out at first. */
const PROGRESS = ["progress", "evaluation.progress"];
const KEPT_PROGRESS = 1_000;

/** What has happened to the job, newest first, while it happens. */
export default function EventsTab({ job, hasEnded }: TabProps) {
  const [isWhole, setWhole] = useState(false);
  const { rare, progress, first } = useEvents(job.id, hasEnded, isWhole);
  const [shown, setShown] = useState(SHOWN);
  const [withProgress, setWithProgress] = useState(false);
  const events = useMemo(
    () => (withProgress ? [...rare, ...progress].sort((a, b) => a.id - b.id) : rare),
    [rare, progress, withProgress],
  );
  if (first === null) return <Empty title="No events yet" />;
  const isCut = first > 1 && !isWhole;
  return (
    <>
      <Switch
        size="xs"
        mb="xs"
        label="Show progress"
        checked={withProgress}
        onChange={(event) => setWithProgress(event.currentTarget.checked)}
      />
      <EventTable events={events.slice(-shown).toReversed()} />
      {(events.length > shown || isCut) && (
        <Button
          mt="sm"
          size="xs"
          variant="default"
          onClick={() => (events.length > shown ? setShown(shown + SHOWN) : setWhole(true))}
        >
          Show older events
        </Button>
      )}
    </>
  );
}

function EventTable({ events }: { events: Events }) {
  return (
    <ScrollTable
      label="Table of events"
      minWidth={640}
      columns={["Time", "Event", "Attempt", "Stage", "Message"]}
      aria-label="Events"
    >
      {events.map((event) => (
        <EventRow key={event.id} event={event} />
      ))}
    </ScrollTable>
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

interface Known {
  rare: Events;
  progress: Events;
  /** Number of the first event that was read; the job's first is 1. */
  first: number | null;
}

const NOTHING: Known = { rare: [], progress: [], first: null };

/** Follow the events from the last ones on, or all of them. */
function useEvents(jobId: string, hasEnded: boolean, isWhole: boolean): Known {
  const [known, setKnown] = useState(NOTHING);
  const last = useRef<number | undefined>(undefined);
  const url = `/v1/jobs/${encodeURIComponent(jobId)}/events${isWhole ? "" : `?tail=${TAIL}`}`;
  useEffect(() => {
    last.current = undefined; // before the stream of the new address opens
    setKnown(NOTHING);
  }, [url]);
  const onEvents = useCallback((more: Events) => {
    const fresh = more.filter((event) => event.id > (last.current ?? 0));
    last.current = more.at(-1)?.id ?? last.current;
    const isProgress = (event: Schemas["Event"]) => PROGRESS.includes(event.type);
    setKnown(({ rare, progress, first }) => ({
      rare: [...rare, ...fresh.filter((event) => !isProgress(event))].slice(-KEPT),
      progress: [...progress, ...fresh.filter(isProgress)].slice(-KEPT_PROGRESS),
      first: first ?? fresh[0]?.id ?? null,
    }));
  }, []);
  useStream<Schemas["Event"]>({ url, after: () => last.current, onEvents, isComplete: () => hasEnded });
  return known;
}
