/** What the search would do at most, beside the editor. */
import { SimpleGrid, Stack, Table, Text } from "@mantine/core";
import { duration, integer } from "../../../app/format";
import { DataTable, right } from "../../../ui/ScrollTable";
import { Figure, hours, PlanFrame, Warnings } from "../../newjob/plan/PlanPanel";
import type { Planned } from "../../newjob/plan/usePlan";
import type { SearchPlan } from "../requests";

interface Props {
  planned: Planned<SearchPlan>;
  hasMistakes: boolean;
  mayWrite: boolean;
}

export function SearchPlanPanel(props: Props) {
  return (
    <PlanFrame {...props} hint="A valid request shows its trials and hours here.">
      {(plan) => <Content plan={plan} />}
    </PlanFrame>
  );
}

function Content({
  plan: { trials, trials_by_rung: rungs, steps, device_hours, hours: took, plan, warnings },
}: {
  plan: SearchPlan;
}) {
  const { device } = plan;
  return (
    <Stack gap="sm">
      <Warnings warnings={warnings} />
      <SimpleGrid cols={{ base: 2, xs: 4, md: 2, xl: 4 }} spacing="xs">
        <Figure label="Trials at most" value={integer(trials)} />
        <Figure label={device === "cuda" ? "GPU-hours at most" : "CPU time at most"} value={hours({ device_hours, device })} />
        <Figure label="Takes at most" value={took == null ? "–" : `about ${duration(Math.max(1, took * 3600))}`} />
        <Figure label="Steps of all trials" value={integer(steps)} />
      </SimpleGrid>
      {rungs.length > 1 && (
        <DataTable columns={["Rung", right("Trials")]} fz="sm" verticalSpacing={4} maw={320}>
          {rungs.map((count, rung) => (
            <Table.Tr key={rung}>
              <Table.Th scope="row" fw={400}>
                {rungInWords(rung, rungs.length)}
              </Table.Th>
              <Table.Td ta="right">{integer(count)}</Table.Td>
            </Table.Tr>
          ))}
        </DataTable>
      )}
      <Text size="xs" c="dimmed">
        A search ends earlier if it finds that no further trial helps.
      </Text>
    </Stack>
  );
}

function rungInWords(rung: number, rungs: number): string {
  if (rung === 0) return "0, short trainings";
  return rung === rungs - 1 ? `${rung}, as long as the spec` : `${rung}, longer`;
}
