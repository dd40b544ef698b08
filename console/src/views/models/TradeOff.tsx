/** The trade-off plot: accuracy against what it costs, as a plot or as a table. */
import { Group, Paper, SegmentedControl, Select, Stack, Text, Title } from "@mantine/core";
import { useRouter } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import type { Schemas } from "../../api/client";
import { percent } from "../../app/format";
import { modelsRoute } from "../../app/router";
import { SERIES } from "../../app/theme";
import { Scatter } from "../../ui/scatter/Scatter";
import type { Group as PointGroup } from "../../ui/scatter/types";
import { Answer } from "../../ui/states";
import { newestOfEach } from "./choose";
import { metricLabel } from "./metrics";
import { useComparison } from "./queries";
import {
  COSTS,
  metricsOf,
  plotted,
  PUBLISHED,
  PUBLISHED_SOURCE,
  tasksOf,
  TEACHERS,
  usualCost,
  VERSIONS,
  type Compared,
  type Cost,
  type Plotted,
} from "./tradeoff";
import { TradeOffTable } from "./TradeOffTable";

const MOST_VERSIONS = 300;
const GROUPS: PointGroup[] = [
  { name: VERSIONS, color: SERIES[0]!, mark: "circle" },
  { name: TEACHERS, color: SERIES[1]!, mark: "diamond" },
  { name: PUBLISHED, color: SERIES[2]!, mark: "triangle" },
];

const FRONT_OF = [VERSIONS];

interface Selection {
  selected: string[];
  onToggle: (reference: string) => void;
}

export function TradeOff({ models, ...selection }: { models: Schemas["Model"][] } & Selection) {
  const references = useMemo(() => newestOfEach(models, MOST_VERSIONS), [models]);
  const all = models.reduce((sum, model) => sum + model.versions.length, 0);
  const compared = useComparison(references);
  return (
    <Paper withBorder p="md" component="section" aria-labelledby="trade-off">
      <Title order={2} size="h4" id="trade-off" mb="xs">
        Accuracy and cost
      </Title>
      <Answer of={compared}>{(found) => <Evaluated models={found} {...selection} />}</Answer>
      {all > references.length && (
        <Text size="xs" c="dimmed">
          The newest {references.length} of {all.toLocaleString()} versions are shown: search for a model to see its own.
        </Text>
      )}
    </Paper>
  );
}

function Evaluated({ models, ...selection }: { models: Compared[] } & Selection) {
  const chosen = modelsRoute.useSearch();
  const [view, setView] = useState("plot");
  const tasks = useMemo(() => tasksOf(models), [models]);
  const task = tasks.includes(chosen.task ?? "") ? chosen.task! : tasks[0];
  if (task === undefined) return <NothingEvaluated />;
  const metrics = metricsOf(models, task);
  const metric = metrics.includes(chosen.metric ?? "") ? chosen.metric! : metrics[0]!;
  const cost = chosen.x ?? usualCost(models);
  return (
    <Stack gap="sm">
      <Choices tasks={tasks} metrics={metrics} task={task} metric={metric} cost={cost} view={view} onView={setView} />
      <Points models={models} task={task} metric={metric} cost={cost} view={view} {...selection} />
    </Stack>
  );
}

function NothingEvaluated() {
  return (
    <Text size="sm" c="dimmed">
      No version has been evaluated yet. A job's tasks are evaluated at its end;{" "}
      <code>tinyclip-client models evaluate NAME --task task.yaml</code> evaluates any version.
    </Text>
  );
}

interface Chosen {
  task: string;
  metric: string;
  cost: Cost;
  view: string;
}

function Choices({
  tasks,
  metrics,
  task,
  metric,
  cost,
  view,
  onView,
}: Chosen & { tasks: string[]; metrics: string[]; onView: (view: string) => void }) {
  const navigate = modelsRoute.useNavigate();
  const set = (values: { task?: string; metric?: string; x?: Cost }) =>
    void navigate({ search: (before) => ({ ...before, ...values }), replace: true, resetScroll: false });
  return (
    <Group align="flex-end">
      <Select
        label="Task"
        data={tasks}
        value={task}
        onChange={(value) => value !== null && set({ task: value })}
        allowDeselect={false}
        searchable={tasks.length > 8}
        w={200}
      />
      <Select
        label="Metric"
        data={metrics.map((each) => ({ value: each, label: metricLabel(each) }))}
        value={metric}
        onChange={(value) => value !== null && set({ metric: value })}
        allowDeselect={false}
        w={200}
      />
      <Select
        label="Against"
        data={[
          { value: "latency", label: "Time per image" },
          { value: "params", label: "Parameters" },
          { value: "macs", label: "MACs" },
        ]}
        value={cost}
        onChange={(value) => value !== null && set({ x: value })}
        allowDeselect={false}
        w={170}
      />
      <SegmentedControl
        data={[
          { value: "plot", label: "Plot" },
          { value: "table", label: "Table" },
        ]}
        value={view}
        onChange={onView}
        aria-label="Show as"
        ml="auto"
      />
    </Group>
  );
}

function Points({ models, task, metric, cost, view, ...selection }: Chosen & { models: Compared[] } & Selection) {
  const router = useRouter();
  const points = useMemo(
    () =>
      plotted(models, task, metric, cost).map((point) => ({
        ...point,
        href: point.version === null ? undefined : router.buildLocation(target(point)).href,
      })),
    [models, task, metric, cost, router],
  ) as Plotted[];
  if (points.length === 0)
    return (
      <Text size="sm">
        No version has both {metricLabel(metric)} of {task} and a measured time: choose parameters or MACs.
      </Text>
    );
  return (
    <>
      {view === "table" ? (
        <TradeOffTable points={points} metric={metric} cost={cost} {...selection} />
      ) : (
        <Scatter
          title={`${metricLabel(metric)} of ${task} against ${COSTS[cost].label.toLowerCase()}`}
          points={points}
          groups={GROUPS}
          frontOf={FRONT_OF}
          frontName="Pareto front of the versions"
          xLabel={COSTS[cost].label}
          yLabel={`${task}: ${metricLabel(metric)}`}
          formatX={COSTS[cost].format}
          formatY={(share) => percent(share, Number.isInteger(Number((100 * share).toFixed(6))) ? 0 : 1)}
          onOpen={(point) => void router.navigate(target(point as Plotted))}
        />
      )}
      {points.some((point) => point.group === PUBLISHED) && (
        <Text size="xs" c="dimmed">
          Published models: {PUBLISHED_SOURCE}.
        </Text>
      )}
    </>
  );
}

function target({ version }: Plotted) {
  return { to: "/models/$name" as const, params: { name: version!.name }, search: { version: version!.version } };
}
