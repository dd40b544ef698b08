import { Group, Select, Text } from "@mantine/core";
import { visible } from "../../app/labels";
import { useHealth, type Deployment } from "./queries";

interface Props {
  deployments: Deployment[];
  first: string;
  second: string | undefined;
  onFirst: (name: string) => void;
  onSecond: (name: string | undefined) => void;
}

/** One deployment, and perhaps a second one for the same queries. */
export function DeploymentChoice({ deployments, first, second, onFirst, onSecond }: Props) {
  const data = deployments.map((each) => ({ value: each.name, label: `${each.name} · ${each.serving ?? each.model}` }));
  return (
    <Group align="flex-start" gap="md">
      <div>
        <Select
          label="Deployment"
          w={260}
          data={data}
          value={first}
          allowDeselect={false}
          searchable={data.length > 8}
          onChange={(name) => name !== null && onFirst(name)}
        />
        <Health deployment={first} />
      </div>
      {(deployments.length > 1 || second !== undefined) && (
        <div>
          <Select
            label="Compare with"
            placeholder="no other deployment"
            w={260}
            clearable
            clearButtonProps={{ "aria-label": "Compare with no other deployment" }}
            data={data.filter((each) => each.value !== first)}
            value={second ?? null}
            onChange={(name) => onSecond(name ?? undefined)}
          />
          {second !== undefined && <Health deployment={second} />}
        </div>
      )}
    </Group>
  );
}

function Health({ deployment }: { deployment: string }) {
  const health = useHealth(deployment);
  if (health.isError) {
    return (
      <Text size="xs" c="red" mt={4} maw={260} className="user-text">
        {visible(health.error.message, 300)}
      </Text>
    );
  }
  const { model, engine, embed_dim: dimensions } = health.data ?? {};
  if (model === undefined) return null;
  return (
    <Text size="xs" c="dimmed" mt={4} maw={260} className="user-text">
      {visible(
        [model, engine, typeof dimensions === "number" ? `${dimensions} dimensions` : null]
          .filter((part) => typeof part === "string")
          .join(", "),
        300,
      )}
    </Text>
  );
}
