import { Badge, Group as Row, Paper, SimpleGrid, Stack } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { visible } from "../../../app/labels";
import { jobRoute } from "../../../app/router";
import { useSame, useSameItems } from "../../../app/useSame";
import { Chart, type Mark } from "../../../ui/chart/Chart";
import { Empty, ErrorState, Loading } from "../../../ui/states";
import { plannedSteps, specQuery } from "../job/useJob";
import type { TabProps } from "../JobPage";
import { axisEnd, stageMarks, stageOffsets } from "./axis";
import { Controls, Heading } from "./Controls";
import { curvesOf, teacherScores } from "./curvesOf";
import { groupSeries, usualGroups, type Group } from "./groups";
import { Layouts } from "./Layouts";
import type { SeriesByName } from "./series";
import { useMetrics } from "./useMetrics";

/** All that the job has measured, over the steps of all stages, while it measures. */
export default function CurvesTab({ job, hasEnded }: TabProps) {
  const { series: chosen, smooth = 0, scale } = jobRoute.useSearch();
  const { series, error, retry, connected } = useMetrics(job.id, hasEnded);
  const spec = useQuery(specQuery(job.id));
  const all = useSame([...(series?.keys() ?? [])].sort());
  const groups = useMemo(() => shownGroups(all, chosen), [all, chosen]);
  const teacher = useMemo(() => teacherScores(job.stages), [job.stages]);
  const planned = useMemo(() => plannedSteps(spec.data?.resolved), [spec.data]);
  const stageNames = useSame(job.stages.map((stage) => stage.name));
  // Live points seldom move the stages: the charts are given the same offsets until they do.
  const offsets = useSame(series === undefined ? [] : stageOffsets(planned, series));
  const end = series === undefined ? 0 : axisEnd(series, offsets);
  const marks = useMemo(() => stageMarks(stageNames, offsets), [stageNames, offsets]);

  if (series === undefined)
    return error === null ? <Loading label="Loading curves" /> : <ErrorState error={error} onRetry={retry} />;
  if (all.length === 0)
    return (
      <Empty title="No points yet">
        {hasEnded ? "The job ended before its first step." : "The first ones come with the first steps of training."}
      </Empty>
    );
  return (
    <Stack>
      <Row justify="space-between" align="flex-end">
        <Controls names={all} />
        {!hasEnded && <LiveBadge connected={connected} />}
      </Row>
      <SimpleGrid cols={{ base: 1, lg: 2 }}>
        {groups.map((group) => (
          <GroupChart
            key={`${group.key} ${group.names.length}`}
            {...{ group, series, offsets, end, marks, teacher }}
            keep={smooth}
            logarithmic={scale === "log"}
            jobId={job.id}
          />
        ))}
      </SimpleGrid>
      <Layouts job={job} hasEnded={hasEnded} />
    </Stack>
  );
}

function shownGroups(all: string[], chosen: string[] | undefined): Group[] {
  if (chosen !== undefined) return groupSeries(all.filter((name) => chosen.includes(name)));
  return usualGroups(all);
}

function LiveBadge({ connected }: { connected: boolean }) {
  return (
    <Badge variant="dot" color={connected ? "green" : "orange"} radius="sm" tt="none" role="status">
      {connected ? "live" : "connecting"}
    </Badge>
  );
}

interface GroupProps {
  group: Group;
  series: SeriesByName;
  offsets: readonly number[];
  end: number;
  marks: Mark[];
  teacher: ReadonlyMap<string, number>;
  keep: number;
  logarithmic: boolean;
  jobId: string;
}

function GroupChart({ group, series, offsets, end, marks, teacher, keep, logarithmic, jobId }: GroupProps) {
  const points = useSameItems(group.names.map((name) => series.get(name)));
  const lineEnd = group.names.some((name) => teacher.has(name)) ? end : 0; // lines grow with the axis
  const curves = useMemo(
    () => curvesOf({ group, points, offsets, end: lineEnd, keep, teacher }),
    [group, points, offsets, lineEnd, keep, teacher],
  );
  const title = visible(group.title, 100);
  return (
    <Paper withBorder p="sm" miw={0}>
      <Chart
        title={title}
        heading={<Heading>{title}</Heading>}
        curves={curves}
        marks={marks}
        format={group.format}
        logarithmic={logarithmic}
        group={jobId}
      />
    </Paper>
  );
}
