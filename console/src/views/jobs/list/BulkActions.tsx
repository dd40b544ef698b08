import { Alert, Button, CloseButton, Group, List, Paper, Text } from "@mantine/core";
import { useState } from "react";
import { visible } from "../../../app/labels";
import { ButtonLink } from "../../../ui/links";
import { done } from "../../../ui/notify";
import { atMost, type Outcome } from "../atMost";
import { Confirm } from "../../../ui/Confirm";
import { change, CHANGES, type Change, type Job } from "../requests";
import { listed, type ListedJob } from "./mergeJobs";

const AT_ONCE = 4;
const COMPARABLE = 8;
const SHOWN_FAILURES = 10;

interface Props {
  selected: readonly ListedJob[];
  onClear: () => void;
  onChanged: (jobs: ListedJob[]) => void;
}

/** What can be done with the selected jobs: each action with those whose `actions` have it. */
export default function BulkActions({ selected, onClear, onChanged }: Props) {
  const [running, setRunning] = useState<Change | null>(null);
  const [confirming, setConfirming] = useState(false);
  const [failures, setFailures] = useState<Outcome<ListedJob, Job>[]>([]);

  async function run(action: Change): Promise<void> {
    setConfirming(false);
    setRunning(action);
    setFailures([]);
    const outcomes = await atMost(AT_ONCE, able(selected, action), (job) => change(action, job.id));
    const failed = outcomes.filter((each) => each.error !== undefined);
    setRunning(null);
    setFailures(failed);
    if (outcomes.length > failed.length)
      done(`${outcomes.length - failed.length} of ${outcomes.length} jobs ${CHANGES[action].done}`);
    onChanged(outcomes.flatMap((each) => (each.result === undefined ? [] : [listed(each.result)])));
  }

  return (
    <Paper withBorder p="xs" role="region" aria-label="Selected jobs">
      <Group gap="xs">
        <Text size="sm" fw={600} role="status">
          {selected.length} selected
        </Text>
        {(Object.keys(CHANGES) as Change[]).map((action) => {
          const count = able(selected, action).length;
          return (
            <Button
              key={action}
              size="xs"
              variant="default"
              disabled={count === 0 || running !== null}
              loading={running === action}
              onClick={() => (action === "cancel" ? setConfirming(true) : void run(action))}
            >
              {CHANGES[action].label} {count > 0 ? count : ""}
            </Button>
          );
        })}
        <CompareButton ids={selected.map((job) => job.id)} />
        <CloseButton size="sm" aria-label="Clear the selection" onClick={onClear} ml="auto" />
      </Group>
      <Failures of={failures} onClose={() => setFailures([])} />
      <Confirm
        opened={confirming}
        title={`Cancel ${able(selected, "cancel").length} jobs?`}
        action="Cancel jobs"
        onConfirm={() => void run("cancel")}
        onClose={() => setConfirming(false)}
      >
        Jobs that run stop at their next step. Their checkpoints are kept: a retry continues from the last one.
      </Confirm>
    </Paper>
  );
}

function able(jobs: readonly ListedJob[], action: Change): ListedJob[] {
  return jobs.filter((job) => job.actions.includes(action));
}

function CompareButton({ ids }: { ids: string[] }) {
  if (ids.length < 2 || ids.length > COMPARABLE) {
    return (
      <Button size="xs" variant="default" disabled title={`Select 2 to ${COMPARABLE} jobs`}>
        Compare
      </Button>
    );
  }
  return (
    <ButtonLink size="xs" to="/compare-jobs" search={{ ids }}>
      Compare
    </ButtonLink>
  );
}

function Failures({ of, onClose }: { of: Outcome<ListedJob, Job>[]; onClose: () => void }) {
  if (of.length === 0) return null;
  return (
    <Alert
      color="red"
      mt="xs"
      title={of.length === 1 ? "One job refused" : `${of.length} jobs refused`}
      withCloseButton
      closeButtonLabel="Close"
      onClose={onClose}
      role="alert"
    >
      <List size="sm">
        {of.slice(0, SHOWN_FAILURES).map(({ item, error }) => (
          <List.Item key={item.id} className="user-text">
            {visible(item.name, 100)}: {visible(error instanceof Error ? error.message : String(error), 300)}
          </List.Item>
        ))}
        {of.length > SHOWN_FAILURES && <List.Item>and {of.length - SHOWN_FAILURES} more</List.Item>}
      </List>
    </Alert>
  );
}
