/** Which engine a replica has chosen, and why. */
import { Alert, Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, ask, type Schemas } from "../../../api/client";
import { compact, integer, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SLOW_MS } from "../../../app/queries";
import { Answer } from "../../../ui/states";
import { readReport, type EngineReport as Report, type Trial } from "./report";
import { ScrollTable } from "../../../ui/ScrollTable";

export function EngineReport({ deployment: { name, actions = [], updated_at, state } }: { deployment: Schemas["Deployment"] }) {
  const isAnswering = actions.includes("query");
  const health = useQuery({
    queryKey: ["deployments", name, "health", updated_at, state],
    queryFn: () => ask(api.GET("/v1/deployments/{name}/health", { params: { path: { name } } })),
    enabled: isAnswering,
    staleTime: SLOW_MS,
  });
  if (!isAnswering)
    return <Text size="sm">A replica reports its engine once it answers queries, to tokens with the scope infer.</Text>;
  return <Answer of={health}>{(data) => <ReportContent report={readReport(data)} />}</Answer>;
}

function ReportContent({ report }: { report: Report }) {
  const { engine, asked, reason, device, threads, batch, pictures, trials, canaryError } = report;
  return (
    <Stack gap="xs">
      {canaryError !== "" && (
        <Alert color="red" variant="light" title="The canary does not answer">
          <Text size="sm" className="user-text" c="var(--mantine-color-text)">
            {visible(canaryError)}
          </Text>
        </Alert>
      )}
      <Text size="sm" className="user-text">
        <strong>{visible(engine)}</strong> on {visible(device) || "this device"}
        {threads !== null && `, ${threads} ${threads === 1 ? "thread" : "threads"}`}
        {batch !== null && `, at most ${integer(batch)} images together`}
      </Text>
      <Text size="sm" className="user-text">
        {asked === "auto" && "Chosen by the replica: "}
        {visible(reason)}
      </Text>
      {trials.length > 0 && <TrialTable trials={trials} />}
      {pictures !== null && pictures > 0 && (
        <Text size="xs" c="dimmed">
          Compared with torch in fp32 on {compact(pictures)} images of the version.
        </Text>
      )}
    </Stack>
  );
}

function TrialTable({ trials }: { trials: Trial[] }) {
  const isAnyRefused = trials.some(({ refused }) => refused !== "");
  return (
    <ScrollTable
      label="Table of engines that were measured"
      minWidth={360}
      columns={["Engine", "Images/s", "Cosine to torch", isAnyRefused && "Refused"]}
      verticalSpacing={3}
      horizontalSpacing="xs"
      fz="sm"
      style={{ whiteSpace: "nowrap" }}
    >
      {trials.map(({ engine, imagesPerSecond, cosine, refused }) => (
        <Table.Tr key={engine}>
          <Table.Th scope="row" fw={400}>
            {visible(engine)}
          </Table.Th>
          <Table.Td>{significant(imagesPerSecond)}</Table.Td>
          <Table.Td>{cosine === null ? "–" : cosine.toFixed(4)}</Table.Td>
          {isAnyRefused && (
            <Table.Td className="user-text" miw={120} style={{ whiteSpace: "normal" }}>
              {visible(refused, 200)}
            </Table.Td>
          )}
        </Table.Tr>
      ))}
    </ScrollTable>
  );
}
