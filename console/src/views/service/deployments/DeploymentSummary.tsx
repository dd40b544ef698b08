import { Alert, Group, Text } from "@mantine/core";
import type { ReactNode } from "react";
import type { Schemas } from "../../../api/client";
import { ago, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { StateBadge } from "../../../ui/states";
import { CopyText } from "../CopyText";
import { servedModel } from "./servedModel";

export function DeploymentSummary({ deployment }: { deployment: Schemas["Deployment"] }) {
  const { state, message, canary, replicas, engine, endpoint, models = [], updated_at } = deployment;
  return (
    <>
      <Group gap="xl" align="flex-start">
        <Fact label="State">
          <StateBadge state={state} />
        </Fact>
        <Fact label="Model">{servedModel(deployment)}</Fact>
        <Fact label="Canary">
          {canary == null ? "none" : `${visible(canary.model)}, ${percent(canary.weight, 0)} of the queries`}
        </Fact>
        <Fact label="Replicas">{replicas.min === replicas.max ? replicas.min : `${replicas.min} to ${replicas.max}`}</Fact>
        <Fact label="Engine asked for">{engine}</Fact>
        {models.length > 0 && <Fact label="Further models">{models.map((model) => visible(model)).join(", ")}</Fact>}
        <Fact label="Changed">{ago(updated_at)}</Fact>
        <Fact label="Endpoint">
          <CopyText text={endpoint} label="Copy the endpoint" />
        </Fact>
      </Group>
      {message !== undefined && message !== "" && (
        <Alert color={state === "unhealthy" ? "red" : "blue"} variant="light">
          <Text size="sm" className="user-text" c="var(--mantine-color-text)">
            {visible(message)}
          </Text>
        </Alert>
      )}
    </>
  );
}

function Fact({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div>
      <Text size="xs" c="dimmed">
        {label}
      </Text>
      <Text component="div" size="sm" fw={500} className="user-text">
        {children}
      </Text>
    </div>
  );
}
