/** What the server depends on, as it reports itself. */
import { Card, Group, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { ApiError } from "../../../api/problems";
import { send } from "../../../api/client";
import { visible } from "../../../app/labels";
import { LIVE_MS } from "../../../app/queries";
import { Answer, StateBadge } from "../../../ui/states";
import { partsOf, type Readiness } from "./readiness";

export function HealthTab() {
  const readiness = useQuery({ queryKey: ["readyz"], queryFn: readReadiness, refetchInterval: 2 * LIVE_MS });
  return (
    <Answer of={readiness}>
      {(report) => (
        <Stack gap="md">
          <Group gap="sm">
            <Title order={2} size="h4">
              This server is
            </Title>
            <StateBadge state={report.status === "not ready" ? "unhealthy" : report.status} />
          </Group>
          {report.reasons !== "" && <Text className="user-text">{visible(report.reasons)}</Text>}
          <SimpleGrid cols={{ base: 1, xs: 2, lg: 4 }}>
            {partsOf(report).map((part) => (
              <Card key={part.name} withBorder padding="sm">
                <Group justify="space-between" wrap="nowrap" mb={4}>
                  <Title order={3} size="h5">
                    {part.title}
                  </Title>
                  {part.state !== null && <StateBadge state={part.state === "ok" ? "ok" : "unhealthy"} />}
                </Group>
                <Text size="sm" className="user-text">
                  {part.state !== null && part.state !== "ok" ? visible(part.state) : part.description}
                </Text>
              </Card>
            ))}
          </SimpleGrid>
        </Stack>
      )}
    </Answer>
  );
}

/** A server that is not ready answers 503 with its reasons: that is a report too. */
async function readReadiness(): Promise<Readiness> {
  try {
    const { status, ...parts } = (await (await send("/readyz")).json()) as Record<string, string>;
    return { status: status ?? "ready", parts, reasons: "" };
  } catch (error) {
    if (error instanceof ApiError && error.problem.code === "not_ready")
      return { status: "not ready", parts: {}, reasons: error.problem.detail ?? "" };
    throw error;
  }
}
