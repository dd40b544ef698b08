import { Button, Chip, CloseButton, Group, Stack, Switch, Text, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconCopy, IconSearch } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { visible } from "../../../app/labels";
import { jobRoute } from "../../../app/router";
import { done, failed } from "../../../ui/notify";
import { Empty, Loading } from "../../../ui/states";
import type { TabProps } from "../JobPage";
import { LogLines } from "./LogLines";
import { LONGEST_TAIL, useLog, type LogLine } from "./useLog";

const LEVELS = ["debug", "info", "warning", "error"];

/** The log of the job's workers: its last lines, and those that follow. */
export default function LogTab({ job, hasEnded }: TabProps) {
  const { search = "", level = [] } = jobRoute.useSearch();
  const [isLong, setLong] = useState(false);
  const { lines, connected, isEmpty } = useLog(job.id, hasEnded, { search, levels: level, isLong });
  const [held, setHeld] = useState<readonly LogLine[] | null>(null); // what is shown while the view does not follow
  const levels = level.join();
  useEffect(() => setHeld(null), [search, levels, isLong]);
  const shown = held ?? lines;
  const waiting = held === null ? 0 : (lines.at(-1)?.id ?? 0) - (held.at(-1)?.id ?? 0);

  return (
    <Stack gap="xs">
      <LogFilter />
      <Group gap="md" justify="space-between">
        <Group gap="md">
          {!hasEnded && (
            <Switch
              size="xs"
              label="Follow"
              checked={held === null}
              onChange={(event) => setHeld(event.currentTarget.checked ? null : lines)}
            />
          )}
          <Text size="xs" c="dimmed" role="status">
            {shown.length.toLocaleString()} lines{search === "" && level.length === 0 ? "" : " found"}
            {hasEnded ? "" : connected ? ", live" : ", connecting"}
            {waiting > 0 && " – new lines below; follow to see them"}
          </Text>
        </Group>
        {!isLong && search === "" && level.length === 0 && (lines[0]?.id ?? 1) > 1 && (
          <Button size="compact-xs" variant="default" ml="auto" onClick={() => setLong(true)}>
            Show the last {LONGEST_TAIL.toLocaleString()} lines
          </Button>
        )}
        <Button
          size="compact-xs"
          variant="default"
          leftSection={<IconCopy size={14} aria-hidden />}
          onClick={() => void copy(shown)}
          disabled={shown.length === 0}
        >
          Copy
        </Button>
      </Group>
      {shown.length > 0 ? (
        <LogLines
          lines={shown}
          search={search}
          isFollowing={held === null && !hasEnded}
          onLeave={() => setHeld((before) => before ?? lines)}
        />
      ) : isEmpty ? (
        <NoLines isFiltered={search !== "" || level.length > 0} />
      ) : (
        <Loading label="Loading the log" />
      )}
    </Stack>
  );
}

function NoLines({ isFiltered }: { isFiltered: boolean }) {
  if (isFiltered) return <Empty title="No line matches">The server looks at the newest lines of a long log.</Empty>;
  return <Empty title="No lines yet">Workers write them once they have started.</Empty>;
}

function LogFilter() {
  const { search = "", level = [] } = jobRoute.useSearch();
  const navigate = jobRoute.useNavigate();
  const [typed, setTyped] = useState(search);
  useEffect(() => setTyped(search), [search]);
  const change = (changed: { search?: string | undefined; level?: string[] | undefined }) =>
    void navigate({ search: (before) => ({ ...before, ...changed }), replace: true, resetScroll: false });
  const send = useDebouncedCallback((text: string) => change({ search: text || undefined }), 300);
  const set = (text: string) => {
    setTyped(text);
    send(text);
  };
  return (
    <Group gap="sm">
      <TextInput
        type="search"
        size="xs"
        w={{ base: "100%", xs: 280 }}
        aria-label="Search the log"
        placeholder="search all lines"
        leftSection={<IconSearch size={14} aria-hidden />}
        rightSection={typed === "" ? null : <CloseButton size="xs" aria-label="Clear the search" onClick={() => set("")} />}
        value={typed}
        maxLength={200}
        onChange={(event) => set(event.currentTarget.value)}
      />
      <Chip.Group multiple value={level} onChange={(levels) => change({ level: levels.length === 0 ? undefined : levels })}>
        <Group gap={6} role="group" aria-label="Levels">
          {LEVELS.map((each) => (
            <Chip key={each} value={each} size="xs" variant="outline">
              {each}
            </Chip>
          ))}
        </Group>
      </Chip.Group>
    </Group>
  );
}

async function copy(lines: readonly LogLine[]): Promise<void> {
  const text = lines
    .map((line) => `${line.created_at} ${line.level} ${line.source} ${visible(line.message, Infinity)}`)
    .join("\n");
  try {
    await navigator.clipboard.writeText(text);
    done(`Copied ${lines.length.toLocaleString()} lines`);
  } catch {
    failed("Copying", new Error("The browser allows it on https pages and on this machine only."));
  }
}
