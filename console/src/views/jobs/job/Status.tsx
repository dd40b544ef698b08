import { Alert, Group, Progress, Text } from "@mantine/core";
import { compact, duration, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { stateColor } from "../../../app/theme";
import { StateBadge } from "../../../ui/states";
import { hasEnded, type Job } from "../jobState";

/** Where the job is, and why it failed. */
export function Status({ job }: { job: Job }) {
  const { fraction, step, steps, stage, stages, eta_seconds, pairs_per_second, waiting } = job.progress;
  const percent = Math.round(100 * fraction);
  const parts = [
    `${percent} %`,
    steps > 0 ? `step ${integer(step)} of ${integer(steps)}` : "",
    stages > 1 ? `stage ${Math.min(stage + 1, stages)} of ${stages}` : "",
    !hasEnded(job) && pairs_per_second != null ? `${compact(pairs_per_second)} pairs/s` : "",
    !hasEnded(job) && eta_seconds != null ? `${duration(eta_seconds)} left` : "",
    waiting == null ? "" : visible(waiting, 300),
  ].filter((part) => part !== "");
  return (
    <div>
      <Group gap="sm" mb={6}>
        <StateBadge state={job.state} />
        <Text size="sm" className="user-text">
          {parts.join(" · ")}
        </Text>
      </Group>
      <Progress value={percent} color={stateColor(job.state)} aria-label="Progress" />
      {job.error !== null && (
        <Alert color="red" variant="light" mt="sm" title={`Failed: ${visible(job.error.code, 100)}`} role="alert">
          <Text size="sm" className="user-text">
            {visible(job.error.message)}
            {job.error.stage != null &&
              ` (stage ${job.error.stage + 1}${job.error.attempt == null ? "" : `, attempt ${job.error.attempt}`})`}
          </Text>
        </Alert>
      )}
    </div>
  );
}
