/** What a deployment answers now: figures, latency, requests, batches, its engine and its replicas. */
import { Alert, Grid, SimpleGrid, Stack, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { compact, integer, milliseconds, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { Answer, Empty } from "../../../ui/states";
import { BatchSizes } from "./BatchSizes";
import { EngineReport } from "./EngineReport";
import { LatencyTable } from "./LatencyTable";
import { ModelShares } from "./ModelShares";
import { queryRate, type Traffic } from "./rates";
import { ReplicaTable } from "./ReplicaTable";
import { RequestTable } from "./RequestTable";
import { Section } from "./Section";
import { useTraffic } from "./useTraffic";

export function TrafficView({ deployment }: { deployment: Schemas["Deployment"] }) {
  const isDeleting = deployment.state === "deleting";
  const { query, answers } = useTraffic(deployment.name, !isDeleting);
  if (isDeleting) return <Empty title="The deployment is being deleted" />;
  return (
    <Answer of={query}>{(traffic) => <TrafficContent deployment={deployment} traffic={traffic} answers={answers} />}</Answer>
  );
}

function TrafficContent({
  deployment,
  traffic,
  answers,
}: {
  deployment: Schemas["Deployment"];
  traffic: Traffic;
  answers: Traffic[];
}) {
  const { unreachable = [] } = traffic;
  return (
    <Stack gap="md">
      {unreachable.length > 0 && (
        <Alert color="orange" variant="light" title="Some nodes do not answer">
          <Text size="sm" className="user-text" c="var(--mantine-color-text)">
            The numbers are without the replicas at {unreachable.map((address) => visible(address)).join(", ")}.
          </Text>
        </Alert>
      )}
      <Figures traffic={traffic} rate={queryRate(answers)} />
      <Grid gap="md">
        <Grid.Col span={{ base: 12, lg: 7 }}>
          <Stack gap="md">
            <Section title="Latency by route and phase">
              <LatencyTable traffic={traffic} />
            </Section>
            <Section title="Requests">
              <RequestTable answers={answers.length === 0 ? [traffic] : answers} />
            </Section>
          </Stack>
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 5 }}>
          <Stack gap="md">
            {deployment.canary != null && (
              <Section title="Canary">
                <ModelShares models={traffic.models ?? []} canary={deployment.canary} />
              </Section>
            )}
            <Section title="Batch sizes">
              <BatchSizes batches={traffic.batches ?? []} />
            </Section>
            <Section title="Engine">
              <EngineReport deployment={deployment} />
            </Section>
          </Stack>
        </Grid.Col>
      </Grid>
      <Section title="Replicas">
        <ReplicaTable replicas={traffic.replicas ?? []} />
      </Section>
    </Stack>
  );
}

function Figures({ traffic: { queries, latency, cached_texts, waiting = {} }, rate }: { traffic: Traffic; rate: number | null }) {
  const hitRate = cached_texts?.hit_rate;
  const waits = Object.entries(waiting);
  return (
    <SimpleGrid cols={{ base: 2, xs: 3, lg: 6 }} spacing="sm">
      <Figure label="Queries" value={compact(queries)} hint="since the replicas started" />
      <Figure label="Rate" value={rate === null ? "–" : `${significant(rate, 2)}/s`} hint="in the last ten seconds" />
      <Figure label="Latency, mean" value={milliseconds(latency.mean_ms)} hint={`p50 ${milliseconds(latency.p50_ms)}`} />
      <Figure label="Latency, p95" value={milliseconds(latency.p95_ms)} hint={`p99 ${milliseconds(latency.p99_ms)}`} />
      <Figure
        label="Cached texts"
        value={percent(hitRate, 0)}
        hint={`${compact(cached_texts?.hits)} hits, ${compact(cached_texts?.misses)} misses`}
      />
      <Figure
        label="Waiting"
        value={integer(waits.reduce((sum, [, count]) => sum + count, 0))}
        hint={waits.map(([kind, count]) => `${count} ${visible(kind)}`).join(", ") || "no items"}
      />
    </SimpleGrid>
  );
}

function Figure({ label, value, hint }: { label: string; value: string; hint: string }) {
  return (
    <div>
      <Text size="xs" c="dimmed">
        {label}
      </Text>
      <Text fw={600} size="lg">
        {value}
      </Text>
      <Text size="xs" c="dimmed">
        {hint}
      </Text>
    </div>
  );
}
