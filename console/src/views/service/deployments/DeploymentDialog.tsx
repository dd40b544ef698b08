/** Creates a deployment, or updates one without dropping a request. */
import { Autocomplete, Group, Modal, NumberInput, Select } from "@mantine/core";
import { api, ask, type Schemas } from "../../../api/client";
import { done } from "../../../ui/notify";
import { RequestForm, useFields } from "../../../ui/RequestForm";
import { ModelInput, NameInput } from "../fields";
import { useModelVersions, useNewestModel } from "../queries";
import { bodyOf, ENGINES, filled, formOf, problemOf, type DeploymentForm as FormFields, type FilledForm } from "./form";

interface Props {
  opened: boolean;
  onClose: () => void;
  /** The deployment to update; a new one without it. */
  existing?: Schemas["Deployment"] | undefined;
  /** The model that a new one starts with. */
  model?: string | undefined;
}

export function DeploymentDialog({ opened, onClose, existing, model }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title={existing === undefined ? "Deploy a model" : `Update ${existing.name}`}>
      <DeploymentForm existing={existing} model={model} onClose={onClose} />
    </Modal>
  );
}

function DeploymentForm({ existing, model, onClose }: Omit<Props, "opened">) {
  const [given, set] = useFields(() => formOf(existing, model ?? null));
  const form = filled(given, useNewestModel());
  return (
    <RequestForm
      action={existing === undefined ? "Deploy" : "Update"}
      isBlocked={problemOf(form) ?? false}
      send={() =>
        ask(api.PUT("/v1/deployments/{name}", { params: { path: { name: form.name.trim() } }, body: bodyOf(form, existing) }))
      }
      queryKey={["deployments"]}
      onSent={({ name }) => {
        done(existing === undefined ? `Deployment ${name} starts` : `Deployment ${name} is being updated`);
        onClose();
      }}
      onCancel={onClose}
    >
      {existing === undefined && <NameInput value={form.name} onChange={(name) => set({ name })} />}
      <ModelInput value={form.model} onChange={(changed) => set({ model: changed })} />
      <ReplicaFields form={form} set={set} />
      <Select
        label="Engine"
        description="auto measures them and takes the fastest that is exact enough"
        data={ENGINES}
        value={form.engine}
        allowDeselect={false}
        onChange={(value) => set({ engine: value ?? "auto" })}
      />
      <CanaryFields form={form} set={set} />
    </RequestForm>
  );
}

type Fields = { form: FilledForm; set: (change: Partial<FormFields>) => void };

function ReplicaFields({ form, set }: Fields) {
  return (
    <Group grow align="flex-start">
      <NumberInput
        label="Fewest replicas"
        min={1}
        max={1000}
        allowDecimal={false}
        value={form.min}
        onChange={(value) => set({ min: Number(value) || 1 })}
      />
      <NumberInput
        label="Most replicas"
        min={1}
        max={1000}
        allowDecimal={false}
        value={form.max}
        onChange={(value) => set({ max: Number(value) || 1 })}
        error={form.max < form.min ? "at least as many as the fewest" : undefined}
      />
    </Group>
  );
}

function CanaryFields({ form, set }: Fields) {
  const versions = useModelVersions(true);
  const name = form.model.split("@")[0];
  return (
    <Group grow align="flex-start">
      <Autocomplete
        label="Canary"
        description="Another version"
        placeholder="none"
        data={versions.filter((version) => version.startsWith(`${name}@`))}
        value={form.canary}
        onChange={(value) => set({ canary: value })}
        limit={50}
      />
      <NumberInput
        label="Its share of queries"
        description="In percent"
        suffix=" %"
        min={1}
        max={99}
        value={form.weight}
        disabled={form.canary.trim() === ""}
        onChange={(value) => set({ weight: Number(value) || 10 })}
      />
    </Group>
  );
}
