import { Paper, Text } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { bytes, compact, duration, percent, significant } from "../../../app/format";
import { Rows } from "../report/Statistics";

/** What a reinforcement would cost and save, measured on a few samples. */
export function Cost({ cost }: { cost: Schemas["ReinforcementCost"] }) {
  return (
    <Paper withBorder p="sm" role="status">
      <Rows
        rows={[
          ["Views", compact(cost.views)],
          ["Different texts", compact(cost.texts)],
          ["Size", bytes(cost.bytes)],
          ["Time of one core or GPU", duration(cost.seconds)],
          ["The teacher's share of a step", percent(cost.teacher_share, 0)],
        ]}
      />
      <Text size="sm" mt={6}>
        It takes as long as a live teacher does in {significant(cost.epochs_to_pay)} epochs; all further ones are saved.
      </Text>
    </Paper>
  );
}
