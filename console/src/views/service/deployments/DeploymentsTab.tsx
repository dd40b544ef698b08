/** The deployments of the project. */
import { Button, Group, Table } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus } from "@tabler/icons-react";
import { useState } from "react";
import type { Schemas } from "../../../api/client";
import { percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { holds } from "../../../app/scopes";
import { useMe } from "../../../app/Shell";
import { ButtonLink, TextLink } from "../../../ui/links";
import { Answer, Empty, StateBadge } from "../../../ui/states";
import { CopyText } from "../CopyText";
import { useDeployments } from "../queries";
import { DeleteDeployment } from "./DeleteDeployment";
import { DeploymentDialog } from "./DeploymentDialog";
import { servedModel } from "./servedModel";
import { ScrollTable } from "../../../ui/ScrollTable";

type Deployment = Schemas["Deployment"];

export function DeploymentsTab() {
  const deployments = useDeployments();
  const [isCreating, creation] = useDisclosure();
  const mayWrite = holds(useMe().data, "write");
  const create = mayWrite && (
    <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={creation.open}>
      Deploy a model
    </Button>
  );
  return (
    <>
      <Answer of={deployments}>
        {(items) =>
          items.length === 0 ? (
            <Empty title="No deployments" action={create}>
              A deployment answers queries with a model of the registry: labels for images, embeddings, searches.
            </Empty>
          ) : (
            <>
              <Group justify="flex-end" mb="sm">
                {create}
              </Group>
              <DeploymentTable items={items} />
            </>
          )
        }
      </Answer>
      <DeploymentDialog opened={isCreating} onClose={creation.close} />
    </>
  );
}

function DeploymentTable({ items }: { items: Deployment[] }) {
  const [updated, setUpdated] = useState<Deployment | null>(null);
  const [deleted, setDeleted] = useState<Deployment | null>(null);
  return (
    <>
      <ScrollTable
        label="Table of deployments"
        minWidth={860}
        columns={["Name", "State", "Model", "Canary", "Replicas", "Engine", "Endpoint", "Actions"]}
      >
        {items.map((item) => (
          <DeploymentRow key={item.name} item={item} onUpdate={() => setUpdated(item)} onDelete={() => setDeleted(item)} />
        ))}
      </ScrollTable>
      <DeploymentDialog
        key={updated?.name}
        opened={updated !== null}
        existing={updated ?? undefined}
        onClose={() => setUpdated(null)}
      />
      <DeleteDeployment name={deleted?.name ?? null} onClose={() => setDeleted(null)} />
    </>
  );
}

function DeploymentRow({ item, onUpdate, onDelete }: { item: Deployment; onUpdate: () => void; onDelete: () => void }) {
  const actions = item.actions ?? [];
  const { name, model, canary, replicas } = item;
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={600}>
        <TextLink inherit to="/service/deployments/$name" params={{ name }}>
          {visible(name)}
        </TextLink>
      </Table.Th>
      <Table.Td miw={110} title={visible(item.message ?? "")}>
        <StateBadge state={item.state} />
      </Table.Td>
      <Table.Td className="user-text">{servedModel(item)}</Table.Td>
      <Table.Td className="user-text">{canary == null ? "–" : `${visible(canary.model)}, ${percent(canary.weight, 0)}`}</Table.Td>
      <Table.Td>{replicas.min === replicas.max ? replicas.min : `${replicas.min} to ${replicas.max}`}</Table.Td>
      <Table.Td>{item.engine}</Table.Td>
      <Table.Td>
        <CopyText text={item.endpoint} label={`Copy the endpoint of ${name}`} />
      </Table.Td>
      <Table.Td>
        <Group gap={4} wrap="nowrap">
          {actions.includes("query") && (
            <ButtonLink
              size="compact-sm"
              variant="light"
              to="/playground"
              search={{ deployment: name }}
              aria-label={`Try ${model} at ${name}`}
            >
              Try it
            </ButtonLink>
          )}
          {actions.includes("update") && (
            <Button size="compact-sm" variant="default" onClick={onUpdate} aria-label={`Update ${name}`}>
              Update
            </Button>
          )}
          {actions.includes("delete") && (
            <Button size="compact-sm" variant="default" onClick={onDelete} aria-label={`Delete ${name}`}>
              Delete
            </Button>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}
