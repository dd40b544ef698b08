import { Button, Group, Modal, NumberInput, Select, Stack, TextInput } from "@mantine/core";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { done } from "../../../ui/notify";
import { ErrorState } from "../../../ui/states";
import { useChange, type DatasetVersion, type Reinforcement } from "../queries";
import { Cost } from "./Cost";
import { NEW_REINFORCEMENT, requestOf, type ReinforceForm } from "./request";

export function ReinforceModal({ version, opened, onClose }: { version: DatasetVersion; opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title={`Reinforce ${version.name}@${version.version}`} size="lg">
      <Form version={version} onClose={onClose} />
    </Modal>
  );
}

function useRequest<T>(version: DatasetVersion, dryRun: boolean, onDone?: () => void) {
  const path = { name: version.name, version: String(version.version) };
  return useChange(async (form: ReinforceForm) => {
    const answer = await ask(
      api.POST("/v1/datasets/{name}/versions/{version}/reinforcements", { params: { path }, body: requestOf(form, dryRun) }),
    );
    return answer as T;
  }, onDone);
}

function Form({ version, onClose }: { version: DatasetVersion; onClose: () => void }) {
  const [form, setForm] = useState<ReinforceForm>(NEW_REINFORCEMENT);
  const estimate = useRequest<Schemas["ReinforcementCost"]>(version, true);
  const creation = useRequest<Reinforcement>(version, false, () => {
    done("The reinforcement is being computed");
    onClose();
  });
  const set = (change: Partial<ReinforceForm>) => {
    setForm((before) => ({ ...before, ...change }));
    estimate.reset();
  };
  const error = creation.error ?? estimate.error;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        creation.mutate(form);
      }}
    >
      <Stack>
        <Fields form={form} set={set} />
        {estimate.data !== undefined && <Cost cost={estimate.data} />}
        {error !== null && <ErrorState error={error} />}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button
            variant="default"
            loading={estimate.isPending}
            disabled={form.teacher.trim() === ""}
            onClick={() => estimate.mutate(form)}
          >
            Estimate the cost
          </Button>
          <Button type="submit" loading={creation.isPending} disabled={form.teacher.trim() === ""}>
            Reinforce
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Fields({ form, set }: { form: ReinforceForm; set: (change: Partial<ReinforceForm>) => void }) {
  return (
    <>
      <Group grow align="flex-start">
        <TextInput
          label="Teacher"
          description="An open_clip model, or a registered one"
          placeholder="ViT-B-32"
          required
          data-autofocus
          value={form.teacher}
          onChange={(event) => set({ teacher: event.currentTarget.value })}
        />
        <TextInput
          label="Teacher's weights"
          description="Name of pretrained weights, or a path"
          placeholder="laion2b_s34b_b79k"
          value={form.pretrained}
          onChange={(event) => set({ pretrained: event.currentTarget.value })}
        />
      </Group>
      <Group grow align="flex-start">
        <NumberInput
          label="Views of each image"
          min={1}
          max={100}
          value={form.augmentations}
          onChange={(value) => set({ augmentations: Number(value) || 1 })}
        />
        <Select
          label="Captions"
          data={[
            { value: "all", label: "all of a sample" },
            { value: "first", label: "the first of a sample" },
          ]}
          allowDeselect={false}
          value={form.captions}
          onChange={(value) => set({ captions: value as ReinforceForm["captions"] })}
        />
        <Select
          label="Numbers"
          data={["bf16", "fp32", "int8"]}
          allowDeselect={false}
          value={form.dtype}
          onChange={(value) => set({ dtype: value as ReinforceForm["dtype"] })}
        />
      </Group>
    </>
  );
}
