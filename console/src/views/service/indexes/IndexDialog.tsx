/** Creates an index of the images of shards, or an empty one for items that are added later. */
import { Modal, Select, TextInput } from "@mantine/core";
import { api, ask, type Schemas } from "../../../api/client";
import { isName } from "../../../app/names";
import { done } from "../../../ui/notify";
import { RequestForm, useFields } from "../../../ui/RequestForm";
import { ModelInput, NameInput } from "../fields";

type Put = Schemas["IndexPut"];

export function IndexDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Create an index">
      <IndexForm onClose={onClose} />
    </Modal>
  );
}

function IndexForm({ onClose }: { onClose: () => void }) {
  const [form, set] = useFields({ name: "", model: "", shards: "", kind: "auto" });
  return (
    <RequestForm
      action="Create"
      isBlocked={!isName(form.name.trim()) || !form.model.includes("@")}
      send={() => ask(api.PUT("/v1/indexes/{name}", { params: { path: { name: form.name.trim() } }, body: indexBody(form) }))}
      queryKey={["indexes"]}
      onSent={({ name }) => {
        done(`Index ${name} is being built`);
        onClose();
      }}
      onCancel={onClose}
    >
      <NameInput value={form.name} onChange={(name) => set({ name })} />
      <ModelInput value={form.model} onChange={(model) => set({ model })} />
      <TextInput
        label="Shards"
        description="Paths or URIs of WebDataset shards, which the workers read; empty: items are added later"
        placeholder="/data/photos/{000000..000127}.tar"
        value={form.shards}
        onChange={(event) => set({ shards: event.currentTarget.value })}
      />
      <Select
        label="Kind"
        description="auto: exact for few images, a graph of near neighbours (hnsw) for many"
        data={["auto", "exact", "hnsw"]}
        value={form.kind}
        allowDeselect={false}
        onChange={(kind) => set({ kind: kind ?? "auto" })}
      />
    </RequestForm>
  );
}

function indexBody({ model, shards, kind }: { model: string; shards: string; kind: string }): Put {
  return { model: model.trim(), kind, ...(shards.trim() === "" ? {} : { source: { shards: shards.trim() } }) } as Put;
}
