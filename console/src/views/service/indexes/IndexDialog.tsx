/** Creates an index of the images of shards, or an empty one for items that are added later. */
import { Autocomplete, Button, Group, Modal, Select, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { done } from "../../../ui/notify";
import { ErrorState } from "../../../ui/states";
import { useModelVersions } from "../queries";

type Put = Schemas["IndexPut"];

export function IndexDialog({ opened, onClose }: { opened: boolean; onClose(): void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Create an index">
      <IndexFields onClose={onClose} />
    </Modal>
  );
}

function IndexFields({ onClose }: { onClose(): void }) {
  const [form, setForm] = useState({ name: "", model: "", shards: "", kind: "auto" });
  const set = (change: Partial<typeof form>) => setForm((before) => ({ ...before, ...change }));
  const versions = useModelVersions(true);
  const client = useQueryClient();
  const put = useMutation({
    mutationFn: () => ask(api.PUT("/v1/indexes/{name}", { params: { path: { name: form.name.trim() } }, body: indexBody(form) })),
    onSuccess: (index) => {
      done(`Index ${index.name} is being built`);
      void client.invalidateQueries({ queryKey: ["indexes"] });
      onClose();
    },
  });
  const isComplete = /^[a-z0-9][a-z0-9._-]{0,62}$/.test(form.name.trim()) && form.model.includes("@");
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (isComplete) put.mutate();
      }}
    >
      <Stack gap="sm">
        <TextInput
          label="Name"
          description="Lower-case letters, digits, . _ -"
          required
          value={form.name}
          onChange={(event) => set({ name: event.currentTarget.value })}
          data-autofocus
        />
        <Autocomplete
          label="Model"
          description="A version, as emoji@3, or an alias, as emoji@latest"
          required
          data={versions}
          value={form.model}
          onChange={(model) => set({ model })}
          limit={50}
        />
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
        {put.isError && <ErrorState error={put.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={put.isPending} disabled={!isComplete}>
            Create
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function indexBody({ model, shards, kind }: { model: string; shards: string; kind: string }): Put {
  return { model: model.trim(), kind, ...(shards.trim() === "" ? {} : { source: { shards: shards.trim() } }) } as Put;
}
