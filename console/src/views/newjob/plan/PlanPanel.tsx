/** What the spec would do, beside the editor. */
import { Alert, Box, Group, Loader, ScrollArea, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { compact, duration, integer, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ErrorState } from "../../../ui/states";
import { StageTable } from "./StageTable";
import type { Plan, Planned } from "./usePlan";

interface Frame<T> {
  hint: string;
  children: (plan: T) => ReactNode;
}

interface Props<T> {
  planned: Planned<T>;
  hasMistakes: boolean;
  mayWrite: boolean;
}

export function PlanPanel(props: Props<Plan>) {
  return (
    <PlanFrame {...props} hint="A valid spec shows its students, steps and hours here.">
      {(plan) => <PlanContent plan={plan} />}
    </PlanFrame>
  );
}

/** The newest plan of a document, and how far it is that of the text. `hint`: what a valid text shows. */
export function PlanFrame<T>({ planned, hasMistakes, mayWrite, hint, children }: Props<T> & Frame<T>) {
  const { plan, isOutdated, isPlanning, isBusy } = planned;
  return (
    <Stack gap="sm" component="section" aria-labelledby="plan-title">
      <Group justify="space-between" mih={28}>
        <Title order={2} size="h4" id="plan-title">
          Plan
        </Title>
        <Text size="sm" c="dimmed" role="status">
          {isPlanning && <Loader size={12} mr={6} />}
          {statusText(planned, hasMistakes)}
        </Text>
      </Group>
      {planned.error !== null && !hasMistakes && <ErrorState error={planned.error} />}
      {plan === null ? (
        <Text c="dimmed" size="sm">
          {!mayWrite &&
            "Your token has no scope write, which plans and submits jobs: ask an administrator of the project for one."}
          {mayWrite && (isBusy || isPlanning ? "The server reads the teacher and the shards." : hint)}
        </Text>
      ) : (
        <Box style={isOutdated ? { filter: "grayscale(1) opacity(0.6)" } : undefined}>{children(plan)}</Box>
      )}
    </Stack>
  );
}

function statusText({ isPlanning, isBusy, isOutdated, plan }: Planned<unknown>, hasMistakes: boolean): string {
  if (isBusy) return "The server is busy; asking again soon";
  if (isPlanning) return "Planning";
  if (hasMistakes) return plan === null ? "Mistakes in the spec" : "Of the last valid text";
  return isOutdated ? "" : "Up to date";
}

function PlanContent({ plan }: { plan: Plan }) {
  return (
    <Stack gap="sm">
      <Warnings warnings={plan.warnings ?? []} />
      <SimpleGrid cols={{ base: 2, xs: 4, md: 2, xl: 4 }} spacing="xs">
        <Figure label="Steps" value={integer(plan.steps)} />
        <Figure label={plan.device === "cuda" ? "GPU-hours" : "CPU time"} value={hours(plan)} />
        <Figure label="Pairs in an epoch" value={compact(plan.samples_per_epoch)} />
        <Figure label="Batch size" value={integer(plan.spec.batch_size)} />
      </SimpleGrid>
      {(plan.saved_device_hours ?? 0) > 0 && (
        <Text size="sm">The reinforcement saves {significant(plan.saved_device_hours)} device-hours of the teacher.</Text>
      )}
      <ScrollArea type="auto" viewportProps={{ tabIndex: 0, role: "region", "aria-label": "Students" }}>
        <StageTable plan={plan} />
      </ScrollArea>
      <Text size="xs" c="dimmed">
        Parameters are without the token embedding.
        {plan.stages.some((stage) => stage.student.estimated) && " ~ is an estimate: the shape is found when the job runs."}
      </Text>
    </Stack>
  );
}

/** Hours of a device, as what they are. */
export function hours({ device_hours, device }: Pick<Plan, "device_hours" | "device">): string {
  return device === "cuda" ? `${significant(device_hours)} h` : `about ${duration(Math.max(1, device_hours * 3600))}`;
}

export function Figure({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <Text size="xs" c="dimmed">
        {label}
      </Text>
      <Text fw={600}>{value}</Text>
    </div>
  );
}

export function Warnings({ warnings }: { warnings: string[] }) {
  if (warnings.length === 0) return null;
  return (
    <Alert
      color="orange"
      variant="light"
      icon={<IconAlertTriangle />}
      title={warnings.length === 1 ? "A warning" : `${warnings.length} warnings`}
    >
      <Stack gap={4} component="ul" m={0} pl="md">
        {warnings.map((warning) => (
          <Text key={warning} component="li" size="sm" className="user-text" c="var(--mantine-color-text)">
            {visible(warning)}
          </Text>
        ))}
      </Stack>
    </Alert>
  );
}
