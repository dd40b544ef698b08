import { Checkbox, Group, NumberInput } from "@mantine/core";
import { useView } from "../view";
import { FilterBuilder } from "./FilterBuilder";
import type { Kind } from "./filters";
import { DEFAULT_HITS } from "./SearchMode";

export function SearchOptions({ fields }: { fields: ReadonlyMap<string, Kind> }) {
  const [view, set] = useView();
  return (
    <Group align="flex-start" gap="lg">
      <NumberInput
        label="Hits"
        w={100}
        min={1}
        max={1000}
        value={view.top ?? DEFAULT_HITS}
        onChange={(value) => set({ top: Number(value) || undefined })}
      />
      <FilterBuilder fields={fields} given={view.filter} onChange={(filter) => set({ filter })} />
      <Checkbox
        mt={28}
        label="Also search indexes of the model's teacher or student"
        checked={view.compatible === "yes"}
        onChange={(event) => set({ compatible: event.currentTarget.checked ? "yes" : undefined })}
      />
    </Group>
  );
}
