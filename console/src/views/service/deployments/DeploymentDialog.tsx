/** Creates a deployment, or updates one without dropping a request. */
import { Autocomplete, Button, Group, Modal, NumberInput, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { done } from "../../../ui/notify";
import { ErrorState } from "../../../ui/states";
import { useModelVersions, useNewestModel } from "../queries";
import { bodyOf, ENGINES, filled, formOf, problemOf, type DeploymentForm, type FilledForm } from "./form";

interface Props {
  opened: boolean;
  onClose(): void;
  /** The deployment to update; a new one without it. */
  existing?: Schemas["Deployment"] | undefined;
  /** The model that a new one starts with. */
  model?: string;
}

export function DeploymentDialog({ opened, onClose, existing, model }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title={existing === undefined ? "Deploy a model" : `Update ${existing.name}`}>
      <DeploymentFields existing={existing} model={model ?? null} onClose={onClose} />
    </Modal>
  );
}

function DeploymentFields({ existing, model, onClose }: { existing: Props["existing"]; model: string | null; onClose(): void }) {
  const [given, setForm] = useState<DeploymentForm>(() => formOf(existing, model));
  const versions = useModelVersions(true);
  const form = filled(given, useNewestModel());
  const client = useQueryClient();
  const put = useMutation({
    mutationFn: () =>
      ask(api.PUT("/v1/deployments/{name}", { params: { path: { name: form.name.trim() } }, body: bodyOf(form, existing) })),
    onSuccess: (deployment) => {
      done(existing === undefined ? `Deployment ${deployment.name} starts` : `Deployment ${deployment.name} is being updated`);
      void client.invalidateQueries({ queryKey: ["deployments"] });
      onClose();
    },
  });
  const set = (change: Partial<DeploymentForm>) => setForm((before) => ({ ...before, ...change }));
  const problem = problemOf(form);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) put.mutate();
      }}
    >
      <Stack gap="sm">
        {existing === undefined && (
          <TextInput
            label="Name"
            description="Lower-case letters, digits, . _ -"
            required
            value={form.name}
            onChange={(event) => set({ name: event.currentTarget.value })}
            data-autofocus
          />
        )}
        <Autocomplete
          label="Model"
          description="A version, as emoji@3, or an alias, as emoji@latest"
          required
          data={versions}
          value={form.model}
          onChange={(value) => set({ model: value })}
          limit={50}
        />
        <ReplicaFields form={form} set={set} />
        <Select
          label="Engine"
          description="auto measures them and takes the fastest that is exact enough"
          data={ENGINES}
          value={form.engine}
          allowDeselect={false}
          onChange={(value) => set({ engine: (value ?? "auto") as DeploymentForm["engine"] })}
        />
        <CanaryFields form={form} set={set} versions={versions} />
        {put.isError && <ErrorState error={put.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={put.isPending} disabled={problem !== null} title={problem ?? undefined}>
            {existing === undefined ? "Deploy" : "Update"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

type Fields = { form: FilledForm; set(change: Partial<DeploymentForm>): void };

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

function CanaryFields({ form, set, versions }: Fields & { versions: string[] }) {
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
