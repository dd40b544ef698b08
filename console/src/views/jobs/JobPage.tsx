import { Badge, Group, Tabs } from "@mantine/core";
import { lazy, Suspense } from "react";
import { ago, dateTime } from "../../app/format";
import { visible } from "../../app/labels";
import { jobRoute } from "../../app/router";
import { Page } from "../../ui/Page";
import { Answer, Loading } from "../../ui/states";
import { Facts } from "./job/Facts";
import { JobActions } from "./job/JobActions";
import { ModelLinks } from "./job/ModelLinks";
import { Stages } from "./job/Stages";
import { Status } from "./job/Status";
import { useJob } from "./job/useJob";
import { hasEnded, type Job } from "./jobState";

// Each tab is loaded when it is first opened, and has the view's one stream while it is open.
const TABS = [
  { key: "curves", label: "Curves", Content: lazy(() => import("./curves/CurvesTab")) },
  { key: "results", label: "Results", Content: lazy(() => import("./job/ResultsTab")) },
  { key: "log", label: "Log", Content: lazy(() => import("./log/LogTab")) },
  { key: "events", label: "Events", Content: lazy(() => import("./job/EventsTab")) },
  { key: "spec", label: "Spec", Content: lazy(() => import("./spec/SpecTab")) },
  { key: "attempts", label: "Attempts", Content: lazy(() => import("./job/AttemptsTab")) },
  { key: "checkpoints", label: "Checkpoints", Content: lazy(() => import("./job/CheckpointsTab")) },
];

export interface TabProps {
  job: Job;
  hasEnded: boolean;
}

export default function JobPage() {
  const { jobId } = jobRoute.useParams();
  const job = useJob(jobId);
  if (job.data !== undefined) return <Content key={jobId} job={job.data} />;
  return (
    <Page title="Job">
      <Answer of={job}>{() => null}</Answer>
    </Page>
  );
}

function Content({ job }: { job: Job }) {
  return (
    <Page
      title={visible(job.name, 200)}
      subtitle={<Subtitle job={job} />}
      actions={
        <>
          <ModelLinks job={job} />
          <JobActions job={job} />
        </>
      }
      gap="sm"
    >
      <Status job={job} />
      <Facts job={job} />
      <Stages stages={job.stages} />
      <JobTabs job={job} />
    </Page>
  );
}

function Subtitle({ job }: { job: Job }) {
  return (
    <Group gap={6}>
      <span title={dateTime(job.created_at)}>
        {job.id} · submitted {ago(job.created_at)}
      </span>
      {Object.entries(job.labels).map(([key, value]) => (
        <Badge key={key} variant="default" radius="sm" tt="none" fw={500} className="user-text">
          {visible(`${key}: ${value}`, 80)}
        </Badge>
      ))}
    </Group>
  );
}

function JobTabs({ job }: { job: Job }) {
  const { tab } = jobRoute.useSearch();
  const navigate = jobRoute.useNavigate();
  const opened = TABS.find((each) => each.key === tab)?.key ?? "curves";
  return (
    <Tabs
      value={opened}
      onChange={(next) =>
        void navigate({ search: (before) => ({ ...before, tab: next ?? undefined }), replace: true, resetScroll: false })
      }
      keepMounted={false}
    >
      <Tabs.List aria-label="About this job">
        {TABS.map(({ key, label }) => (
          <Tabs.Tab key={key} value={key}>
            {label}
          </Tabs.Tab>
        ))}
      </Tabs.List>
      {TABS.map(({ key, Content: Tab }) => (
        <Tabs.Panel key={key} value={key} pt="sm">
          <Suspense fallback={<Loading />}>
            <Tab job={job} hasEnded={hasEnded(job)} />
          </Suspense>
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
