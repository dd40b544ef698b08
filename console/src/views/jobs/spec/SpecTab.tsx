import { Button, Group, ScrollArea, Switch, Text } from "@mantine/core";
import { IconCopy } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { stringify } from "yaml";
import { visible } from "../../../app/labels";
import { done, failed } from "../../../ui/notify";
import { Answer } from "../../../ui/states";
import { specQuery } from "../job/useJob";
import type { TabProps } from "../JobPage";
import classes from "./SpecTab.module.css";
import { specRows, type SpecRow } from "./specRows";

export default function SpecTab({ job }: TabProps) {
  const spec = useQuery(specQuery(job.id));
  return <Answer of={spec}>{({ submitted, resolved }) => <Specs submitted={submitted} resolved={resolved} />}</Answer>;
}

/** What was sent beside what the workers get. */
function Specs({ submitted, resolved }: { submitted: unknown; resolved: unknown }) {
  const [onlyDifferent, setOnlyDifferent] = useState(false);
  const rows = useMemo(() => specRows(submitted, resolved), [submitted, resolved]);
  const shown = onlyDifferent ? rows.filter((row) => row.difference !== "same") : rows;
  return (
    <>
      <Group justify="space-between" mb="xs">
        <Switch
          size="xs"
          label="Only what differs"
          checked={onlyDifferent}
          onChange={(event) => setOnlyDifferent(event.currentTarget.checked)}
        />
        <Group gap="xs">
          <CopyYaml label="Copy the submitted spec" value={submitted} />
          <CopyYaml label="Copy the resolved spec" value={resolved} />
        </Group>
      </Group>
      <ScrollArea viewportProps={{ tabIndex: 0, role: "region", "aria-label": "Specs" }}>
        <table className={classes.specs} aria-label="Submitted and resolved spec">
          <thead>
            <tr>
              <th scope="col">Submitted</th>
              <th scope="col">Resolved: what the workers get</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((row, place) => (
              <Row key={place} row={row} />
            ))}
          </tbody>
        </table>
      </ScrollArea>
      {shown.length === 0 && <Text size="sm">Nothing differs.</Text>}
    </>
  );
}

function Row({ row }: { row: SpecRow }) {
  return (
    <tr data-difference={row.difference}>
      <td className="user-text">{row.left === null ? "" : visible(row.left)}</td>
      <td className="user-text">{row.right === null ? "" : visible(row.right)}</td>
    </tr>
  );
}

function CopyYaml({ label, value }: { label: string; value: unknown }) {
  const copy = () =>
    Promise.resolve()
      .then(() => navigator.clipboard.writeText(stringify(value)))
      .then(() => done("Copied as YAML"))
      .catch(() => failed("Copying", new Error("The browser allows it on https pages and on this machine only.")));
  return (
    <Button size="compact-xs" variant="default" leftSection={<IconCopy size={14} aria-hidden />} onClick={() => void copy()}>
      {label}
    </Button>
  );
}
