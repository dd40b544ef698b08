import { Badge, Card, Group, Stack, Text, Title } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { ago, bytes, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { StateBadge } from "../../../ui/states";
import { Meter } from "../Meter";

type Node = Schemas["ClusterNode"];

export function NodeCard({ node, workloads }: { node: Node; workloads: Schemas["Workload"][] }) {
  const { hostname, ip, alive, is_head, cpus, gpus, memory, object_store, devices = [], resources = {} } = node;
  return (
    <Card withBorder padding="sm">
      <Stack gap="xs">
        <Group justify="space-between" wrap="nowrap">
          <Title order={3} size="h5" className="user-text">
            {visible(hostname || ip)}
          </Title>
          <Group gap={4}>
            {is_head && (
              <Badge variant="default" tt="none" radius="sm">
                head
              </Badge>
            )}
            <StateBadge state={alive ? "alive" : "dead"} />
          </Group>
        </Group>
        <Text size="xs" c="dimmed">
          {ip}
          {node.joined_at != null && `, joined ${ago(node.joined_at)}`}
        </Text>
        <Meter label="CPUs reserved" used={cpus.used} total={cpus.total} format={significant} />
        {node.cpu_percent != null && (
          <Meter label="CPU load" used={node.cpu_percent} total={100} format={(value) => percent(value / 100, 0)} isShare />
        )}
        {gpus.total > 0 && <Meter label="GPUs reserved" used={gpus.used} total={gpus.total} format={significant} />}
        {devices.map((device, place) => (
          <GpuMeters key={place} device={device} />
        ))}
        <Meter label="Memory" used={memory.used} total={memory.total} format={bytes} isScarce />
        <Meter label="Object store" used={object_store.used} total={object_store.total} format={bytes} isScarce />
        {Object.entries(resources).map(([name, amount]) => (
          <Meter key={name} label={visible(name, 60)} used={amount.used} total={amount.total} format={significant} />
        ))}
        <Text size="sm" className="user-text">
          {workloads.length === 0
            ? "Nothing of this project runs here."
            : `Runs ${[...new Set(workloads.map((one) => `${one.kind} ${visible(one.name, 60)}`))].join(", ")}`}
        </Text>
      </Stack>
    </Card>
  );
}

function GpuMeters({ device: { name, utilization, memory } }: { device: Schemas["Gpu"] }) {
  return (
    <>
      {utilization != null && (
        <Meter
          label={`${visible(name, 60)} load`}
          used={utilization}
          total={100}
          format={(value) => percent(value / 100, 0)}
          isShare
        />
      )}
      {memory != null && (
        <Meter label={`${visible(name, 60)} memory`} used={memory.used} total={memory.total} format={bytes} isScarce />
      )}
    </>
  );
}
