import { Group, Paper, Select, Switch } from "@mantine/core";
import { useMemo } from "react";
import { significant } from "../../app/format";
import { visible } from "../../app/labels";
import { compareJobsRoute } from "../../app/router";
import { Chart } from "../../ui/chart/Chart";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Empty, ErrorState, Loading } from "../../ui/states";
import { ComparedJobs } from "./compare/ComparedJobs";
import { ScoreTable, SpecDifferences } from "./compare/Tables";
import { distinctLabels, useCurves, useJobs, useSeriesNames, useSpecs } from "./compare/useCompared";
import { Heading, Smoothing } from "./curves/Controls";
import { groupSeries } from "./curves/groups";
import { hasEnded } from "./jobState";

const MOST = 8;

export default function CompareJobsPage() {
  const { ids } = compareJobsRoute.useSearch();
  const compared = useMemo(() => [...new Set(ids)].slice(0, MOST), [ids]);
  return (
    <Page
      title="Compare jobs"
      actions={
        <ButtonLink to="/jobs" variant="default" size="xs">
          Choose jobs
        </ButtonLink>
      }
    >
      {compared.length < 2 ? (
        <Empty title="Choose two to eight jobs">Select them in the list of jobs, and compare them.</Empty>
      ) : (
        <Compared key={compared.join()} ids={compared} />
      )}
    </Page>
  );
}

function Compared({ ids }: { ids: readonly string[] }) {
  const { series: chosen, smooth = 0, scale } = compareJobsRoute.useSearch();
  const answers = useJobs(ids);
  const jobs = answers.map((answer) => answer.data);
  const specs = useSpecs(ids).map((answer) => answer.data?.resolved);
  const labels = distinctLabels(jobs, ids);
  const names = useSeriesNames(
    ids,
    jobs.map((job) => job !== undefined && !hasEnded(job)),
  );
  const series = chosen ?? (names?.includes("loss") === false ? names[0] : "loss") ?? "";
  const { curves, isPending, error } = useCurves({ jobs, ids, labels, resolved: specs, series, keep: smooth });
  const format = useMemo(() => groupSeries([series])[0]?.format, [series]);

  const title = visible(series, 80);
  const missing = answers.find((answer) => answer.isError && answer.data === undefined);
  if (missing !== undefined) return <ErrorState error={missing.error} onRetry={() => void missing.refetch()} />;
  const known = jobs.filter((job) => job !== undefined);
  return (
    <>
      <ComparedJobs jobs={jobs} ids={ids} labels={labels} />
      <Controls names={names ?? []} series={series} />
      <Paper withBorder p="sm" miw={0}>
        {error !== null && <ErrorState error={error} />}
        {error === null && isPending && <Loading label="Loading curves" />}
        {!isPending && (
          <Chart
            title={title}
            heading={<Heading>{title}</Heading>}
            curves={curves}
            height={360}
            logarithmic={scale === "log"}
            format={format ?? significant}
          />
        )}
      </Paper>
      {known.length === ids.length && <ScoreTable jobs={known} labels={labels} />}
      {specs.every((spec) => spec !== undefined) && <SpecDifferences specs={specs} labels={labels} />}
    </>
  );
}

function Controls({ names, series }: { names: readonly string[]; series: string }) {
  const { smooth = 0, scale } = compareJobsRoute.useSearch();
  const navigate = compareJobsRoute.useNavigate();
  const set = (change: { series?: string; smooth?: number | undefined; scale?: "log" | undefined }) =>
    void navigate({ search: (before) => ({ ...before, ...change }), replace: true, resetScroll: false });
  const data = [...new Set([...names, series])]
    .filter((name) => name !== "")
    .map((name) => ({ value: name, label: visible(name, 80) }));
  return (
    <Group gap="lg" align="flex-end">
      <Select
        label="Series"
        size="xs"
        w={{ base: "100%", xs: 320 }}
        data={data}
        value={series}
        onChange={(name) => name !== null && set({ series: name })}
        searchable
        allowDeselect={false}
      />
      <Smoothing value={smooth} onChange={(value) => set({ smooth: value === 0 ? undefined : value })} />
      <Switch
        label="Logarithmic"
        size="xs"
        checked={scale === "log"}
        onChange={(event) => set({ scale: event.currentTarget.checked ? "log" : undefined })}
        mb={6}
      />
    </Group>
  );
}
