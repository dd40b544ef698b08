import { Code, Collapse, Group, Text, Tooltip, UnstyledButton } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import type { ReactNode } from "react";
import { duration, elapsed, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import type { Job } from "../jobState";
import { endOf } from "./describe";

/** What the job is made of, in a line: teacher, data, and how long it took. */
export function Facts({ job }: { job: Job }) {
  const { spec } = job;
  const teachers = spec.teacher == null ? spec.teachers.map((each) => each.model) : [spec.teacher.model];
  return (
    <Group component="dl" m={0} gap="2px 20px">
      <Fact name={teachers.length > 1 ? "Teachers" : "Teacher"}>
        <Teachers models={teachers} />
      </Fact>
      <Fact name="Data">
        <Data train={spec.data.train} />
      </Fact>
      <Fact name="Batch size">{integer(spec.batch_size)}</Fact>
      {job.priority !== 0 && <Fact name="Priority">{integer(job.priority)}</Fact>}
      {job.started_at != null && (
        <Fact name={job.finished_at === null ? "Runs for" : "Took"}>{duration(elapsed(job.started_at, job.finished_at))}</Fact>
      )}
      {job.parent != null && (
        <Fact name="Search">
          <TextLink to="/searches/$searchId" params={{ searchId: job.parent.search }}>
            {job.parent.search}, trial {job.parent.trial}
          </TextLink>
        </Fact>
      )}
      {job.retry_of != null && (
        <Fact name="Continues">
          <TextLink to="/jobs/$jobId" params={{ jobId: job.retry_of }}>
            {job.retry_of}
          </TextLink>
        </Fact>
      )}
    </Group>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <Group gap={6} align="baseline" wrap="nowrap">
      <Text component="dt" size="sm" c="dimmed" style={{ whiteSpace: "nowrap" }}>
        {name}
      </Text>
      <Text component="dd" size="sm" m={0} className="user-text">
        {children}
      </Text>
    </Group>
  );
}

/** A long address of a teacher is shown by its end, and whole under the pointer or with the focus. */
function Teachers({ models }: { models: string[] }) {
  const whole = models.join(", ") || "–";
  const short = models.map((model) => endOf(model)).join(", ") || "–";
  if (short === whole) return visible(whole, 200);
  return (
    <Tooltip label={visible(whole, 500)} multiline maw={480} events={{ hover: true, focus: true, touch: true }}>
      <span tabIndex={0}>{visible(short, 200)}</span>
    </Tooltip>
  );
}

/** The data set that the job names, or its shards. */
function Data({ train }: { train: Job["spec"]["data"]["train"] }) {
  if (train.dataset != null) {
    const [name = "", version] = train.dataset.split("@");
    return (
      <TextLink to="/datasets/$name" params={{ name }} search={version === undefined ? {} : { version }}>
        {visible(train.dataset)}
      </TextLink>
    );
  }
  const shards = train.shards == null ? [] : [train.shards].flat();
  if (shards.length <= 1) return <Code>{visible(shards[0] ?? "–", 300)}</Code>;
  return <Shards shards={shards} />;
}

function Shards({ shards }: { shards: string[] }) {
  const [opened, { toggle }] = useDisclosure(false);
  return (
    <>
      <UnstyledButton fz="sm" td="underline" onClick={toggle} aria-expanded={opened}>
        {integer(shards.length)} patterns of shards
      </UnstyledButton>
      <Collapse expanded={opened}>
        {shards.slice(0, 200).map((shard) => (
          <Code key={shard} display="block">
            {visible(shard, 300)}
          </Code>
        ))}
        {shards.length > 200 && <Text size="xs">and {integer(shards.length - 200)} more; see the spec</Text>}
      </Collapse>
    </>
  );
}
