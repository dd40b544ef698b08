/** The nodes of the Ray cluster, and what runs on them. */
import { Anchor, Group, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconExternalLink } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { api, ask, type Schemas } from "../../../api/client";
import { SLOW_MS } from "../../../app/queries";
import { Answer, Empty } from "../../../ui/states";
import { NodeCard } from "./NodeCard";
import { WorkloadTable } from "./WorkloadTable";

type Cluster = Schemas["Cluster"];

export function ClusterTab() {
  const cluster = useQuery({ queryKey: ["cluster"], queryFn: () => ask(api.GET("/v1/cluster")), refetchInterval: SLOW_MS / 2 });
  return <Answer of={cluster}>{(data) => <ClusterContent cluster={data} />}</Answer>;
}

function ClusterContent({ cluster }: { cluster: Cluster }) {
  const { nodes, workloads, others = 0 } = cluster;
  return (
    <Stack gap="lg">
      <Dashboard cluster={cluster} />
      <section aria-labelledby="nodes-title">
        <Title order={2} size="h4" id="nodes-title" mb="xs">
          {nodes.length === 1 ? "1 node" : `${nodes.length} nodes`}
        </Title>
        <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
          {nodes.map((node) => (
            <NodeCard key={node.id} node={node} workloads={workloads.filter((one) => one.nodes?.includes(node.id))} />
          ))}
        </SimpleGrid>
      </section>
      <section aria-labelledby="workloads-title">
        <Title order={2} size="h4" id="workloads-title" mb="xs">
          What runs
        </Title>
        {workloads.length === 0 ? <Empty title="Nothing runs now" /> : <WorkloadTable workloads={workloads} nodes={nodes} />}
        {others > 0 && (
          <Text size="sm" c="dimmed" mt="xs">
            And {others} of other projects and programs.
          </Text>
        )}
      </section>
    </Stack>
  );
}

function Dashboard({ cluster: { dashboard_url, ray_version } }: { cluster: Cluster }) {
  return (
    <Group gap="md">
      <Text size="sm">Ray {ray_version}</Text>
      {dashboard_url == null ? (
        <Text size="sm" c="dimmed">
          The address of Ray's dashboard is not known here.
        </Text>
      ) : (
        <>
          <Anchor href={dashboard_url} target="_blank" rel="noreferrer" size="sm">
            Open Ray's dashboard <IconExternalLink size={14} aria-hidden style={{ verticalAlign: "-2px" }} />
          </Anchor>
          <Text size="sm" c="dimmed">
            It may ask for a token: that of the file ray-token in the server's data folder, or of its administrator.
          </Text>
        </>
      )}
    </Group>
  );
}
