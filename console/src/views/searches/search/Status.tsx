import { Alert, Group, Progress, Text } from "@mantine/core";
import { integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { stateColor } from "../../../app/theme";
import { StateBadge } from "../../../ui/states";
import { hasEnded } from "../../jobs/jobState";
import type { Search } from "../requests";
import { hoursInWords, PHASES, plural } from "../words";

/** Where the search is, and why it failed. */
export function Status({ search }: { search: Search }) {
  const { budget } = search.post;
  const running = search.trials_begun - search.trials_ended;
  const hours = budget.device_hours == null ? "" : ` of ${hoursInWords(budget.device_hours)}`;
  const parts = [
    hasEnded(search) ? "" : PHASES[search.phase],
    `${integer(search.trials_ended)} of at most ${plural(budget.trials, "trial")} ended`,
    running > 0 ? `${integer(running)} in work` : "",
    `${hoursInWords(search.device_hours)}${hours} used`,
    search.state === "failed" ? "" : visible(search.message, 500),
  ].filter((part) => part !== "");
  return (
    <div>
      <Group gap="sm" mb={6}>
        <StateBadge state={search.state} />
        <Text size="sm" className="user-text" flex={1} miw={200}>
          {parts.join(" · ")}
        </Text>
      </Group>
      <Progress
        value={(100 * search.trials_ended) / Math.max(1, budget.trials)}
        color={stateColor(search.state)}
        aria-label="Trials that have ended"
      />
      {search.state === "failed" && (
        <Alert color="red" variant="light" mt="sm" title="Failed" role="alert">
          <Text size="sm" className="user-text">
            {visible(search.message)}
          </Text>
        </Alert>
      )}
    </div>
  );
}
