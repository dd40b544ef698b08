/** The plot of a search: the quality of its trials over what they cost, with the front and the limits. */
import { Group, Select, Text } from "@mantine/core";
import { useRouter } from "@tanstack/react-router";
import { useMemo } from "react";
import { percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { searchRoute } from "../../../app/router";
import { SERIES } from "../../../app/theme";
import { Scatter } from "../../../ui/scatter/Scatter";
import type { Group as PointGroup } from "../../../ui/scatter/types";
import { metricLabel } from "../../models/metrics";
import { Section } from "../../models/Section";
import type { Goal } from "../quality";
import type { Search, Trial } from "../requests";
import { costsOf, usualCost, type Cost } from "./costs";
import { FRONT, limitsOf, pointsOf, RECOMMENDED, shownGoals, TRIALS, type TrialPoint } from "./points";

const GROUPS: PointGroup[] = [
  { name: TRIALS, color: "var(--mantine-color-gray-6)", mark: "circle", isFaint: true },
  { name: FRONT, color: SERIES[0]!, mark: "circle" },
  { name: RECOMMENDED, color: SERIES[5]!, mark: "star" },
];

export function Front({ search }: { search: Search }) {
  const chosen = searchRoute.useSearch();
  const goals = useMemo(() => shownGoals(search), [search]);
  const costs = useMemo(() => costsOf(search.trials), [search.trials]);
  const goal = goals.find((each) => keyOf(each) === chosen.quality) ?? goals[0];
  const cost = costs.find(({ key }) => key === chosen.x) ?? usualCost(costs, search);
  if (goal === undefined || cost === undefined) return null;
  return (
    <Section title="Quality and cost">
      <Choices goals={goals} costs={costs} goal={goal} cost={cost} />
      <Plot search={search} goal={goal} cost={cost} />
    </Section>
  );
}

function keyOf({ task, metric }: Goal): string {
  return `${task} ${metric}`;
}

function Choices({ goals, costs, goal, cost }: { goals: Goal[]; costs: Cost[]; goal: Goal; cost: Cost }) {
  const navigate = searchRoute.useNavigate();
  const set = (values: { quality?: string; x?: string }) =>
    void navigate({ search: (before) => ({ ...before, ...values }), replace: true, resetScroll: false });
  return (
    <Group align="flex-end" mb="sm">
      <Select
        label="Quality"
        data={goals.map((each) => ({ value: keyOf(each), label: visible(`${each.task}: ${metricLabel(each.metric)}`, 80) }))}
        value={keyOf(goal)}
        onChange={(value) => value !== null && set({ quality: value })}
        allowDeselect={false}
        searchable={goals.length > 8}
        w={{ base: "100%", xs: 280 }}
      />
      <Select
        label="Against"
        data={costs.map(({ key, label }) => ({ value: key, label: visible(label, 80) }))}
        value={cost.key}
        onChange={(value) => value !== null && set({ x: value })}
        allowDeselect={false}
        w={{ base: "100%", xs: 320 }}
      />
    </Group>
  );
}

function Plot({ search, goal, cost }: { search: Search; goal: Goal; cost: Cost }) {
  const router = useRouter();
  const points = useMemo(
    () =>
      pointsOf(search, goal, cost).map((point): TrialPoint => {
        const to = target(point.trial);
        return to === null ? point : { ...point, href: router.buildLocation(to).href };
      }),
    [search, goal, cost, router],
  );
  const limits = useMemo(() => limitsOf(search, goal, cost), [search, goal, cost]);
  if (points.length === 0) {
    return (
      <Text size="sm">
        No trial has both {metricLabel(goal.metric)} of {visible(goal.task, 80)} and this cost: choose another.
      </Text>
    );
  }
  const name = `${goal.task}: ${metricLabel(goal.metric)}`;
  return (
    <Scatter
      title={visible(`${name} against ${cost.label}`, 200)}
      points={points}
      groups={GROUPS}
      frontOf={search.front.length > 0 ? RESULT : ALL}
      frontName={search.front.length > 0 ? "Pareto front" : "Pareto front so far"}
      limits={limits}
      xLabel={visible(cost.label, 60)}
      yLabel={visible(name, 60)}
      formatX={cost.format}
      formatY={(share) => percent(share, Number.isInteger(Number((100 * share).toFixed(6))) ? 0 : 1)}
      onOpen={(point) => {
        const to = target((point as TrialPoint).trial);
        if (to !== null) void router.navigate(to);
      }}
    />
  );
}

const ALL = [TRIALS, FRONT, RECOMMENDED];
const RESULT = [FRONT, RECOMMENDED];

/** A trial leads to its version; without one, to its job. */
function target({ model, job }: Trial) {
  if (model != null)
    return { to: "/models/$name" as const, params: { name: model.name }, search: { version: String(model.version) } };
  return job == null ? null : { to: "/jobs/$jobId" as const, params: { jobId: job } };
}
