import { Group, Modal, NumberInput, Text, Textarea, TextInput } from "@mantine/core";
import { useNavigate } from "@tanstack/react-router";
import { api, ask } from "../../../api/client";
import { done } from "../../../ui/notify";
import { RequestForm, useFields } from "../../../ui/RequestForm";
import { formOf, nameProblem, NEW_FORM, requestOf, type RegisterForm } from "./request";
import { DATASETS, type Dataset } from "../queries";

/** Register a data set, or read a registered one again (`again`), perhaps with other settings. */
export function RegisterModal({ opened, onClose, again }: { opened: boolean; onClose: () => void; again?: Dataset }) {
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title={again === undefined ? "Register a data set" : `Read ${again.name} again`}
      size="lg"
    >
      <Form onClose={onClose} again={again} />
    </Modal>
  );
}

function Form({ onClose, again }: { onClose: () => void; again: Dataset | undefined }) {
  const [form, set] = useFields<RegisterForm>(again === undefined ? NEW_FORM : formOf(again));
  const navigate = useNavigate();
  const isComplete =
    form.name !== "" && nameProblem(form.name) === null && form.shards.trim() !== "" && form.captionKey.trim() !== "";
  return (
    <RequestForm
      action={again === undefined ? "Register" : "Read again"}
      isBlocked={!isComplete}
      send={() =>
        ask(api.PUT("/v1/datasets/{name}", { params: { path: { name: form.name } }, body: requestOf(form, again?.source) }))
      }
      queryKey={DATASETS}
      onSent={({ name }) => {
        done(`${name} is being read`);
        onClose();
        void navigate({ to: "/datasets/$name", params: { name } });
      }}
      onCancel={onClose}
    >
      {again === undefined ? (
        <TextInput
          label="Name"
          required
          data-autofocus
          value={form.name}
          onChange={(event) => set({ name: event.currentTarget.value })}
          error={nameProblem(form.name)}
        />
      ) : (
        <Text size="sm">
          A new version is made if the shards or the settings have changed. Earlier versions stay as they are. Name the teacher
          again if the report is to have its agreement.
        </Text>
      )}
      <Fields form={form} set={set} />
    </RequestForm>
  );
}

const SHARDS =
  "WebDataset shards that the cluster can read, one pattern a line: /data/train-*.tar, train-{000..127}.tar, s3://bucket/…";

function Fields({ form, set }: { form: RegisterForm; set: (change: Partial<RegisterForm>) => void }) {
  return (
    <>
      <Textarea
        label="Shards"
        description={SHARDS}
        required
        autosize
        minRows={2}
        maxRows={8}
        value={form.shards}
        onChange={(event) => set({ shards: event.currentTarget.value })}
      />
      <Group grow align="flex-start">
        <TextInput
          label="Caption key"
          description="txt, or a field of the JSON, as json.captions"
          required
          value={form.captionKey}
          onChange={(event) => set({ captionKey: event.currentTarget.value })}
        />
        <NumberInput
          label="Holdout"
          description="Share of pairs that training never sees"
          suffix=" %"
          min={0}
          max={99}
          value={form.holdout}
          onChange={(value) => set({ holdout: Number(value) || 0 })}
        />
      </Group>
      <TextInput
        label="Distinct key"
        description="Optional. A field as json.concept: no two pairs of a batch share its value"
        value={form.distinctKey}
        onChange={(event) => set({ distinctKey: event.currentTarget.value })}
      />
      <Group grow align="flex-start">
        <TextInput
          label="Teacher"
          description="Optional. Its agreement with the pairs is part of the report"
          placeholder="ViT-B-32"
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
    </>
  );
}
