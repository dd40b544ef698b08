import { Box, Collapse, Code, Text, UnstyledButton } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import type { ReactNode } from "react";
import { dateTime, duration, elapsed, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { TextLink } from "../../../ui/links";
import type { Job } from "../jobState";

/** What the job is made of: teacher, data, times, and the model that came out. */
export function Facts({ job }: { job: Job }) {
  const { spec } = job;
  const teachers = spec.teacher == null ? spec.teachers.map((each) => each.model) : [spec.teacher.model];
  return (
    <Box component="dl" m={0} style={{ display: "grid", gridTemplateColumns: "repeat(auto-fill, minmax(210px, 1fr))", gap: "8px 16px" }}>
      <Fact name={teachers.length > 1 ? "Teachers" : "Teacher"}>{visible(teachers.join(", ") || "–", 200)}</Fact>
      <Fact name="Data">
        <Data train={spec.data.train} />
      </Fact>
      <Fact name="Batch size">{integer(spec.batch_size)}</Fact>
      <Fact name="Submitted">{dateTime(job.created_at)}</Fact>
      <Fact name={job.finished_at === null ? "Runs for" : "Took"}>{duration(elapsed(job.started_at, job.finished_at))}</Fact>
      {job.model !== null && (
        <Fact name="Model">
          <TextLink to="/models/$name" params={{ name: job.model.name }} search={{ version: String(job.model.version) }}>
            {visible(job.model.name)}@{job.model.version}
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
    </Box>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div>
      <Text component="dt" size="xs" c="dimmed">
        {name}
      </Text>
      <Text component="dd" size="sm" m={0} className="user-text">
        {children}
      </Text>
    </div>
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
