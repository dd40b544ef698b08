import { Group, MultiSelect, Slider, Switch, Text, Title } from "@mantine/core";
import { useEffect, useState } from "react";
import { visible } from "../../../app/labels";
import { jobRoute } from "../../../app/router";

/** Which series are shown, and how; kept in the address. */
export function Controls({ names }: { names: readonly string[] }) {
  const { series = [], smooth = 0, scale } = jobRoute.useSearch();
  const navigate = jobRoute.useNavigate();
  const set = (change: { series?: string[] | undefined; smooth?: number | undefined; scale?: "log" | undefined }) =>
    void navigate({ search: (before) => ({ ...before, ...change }), replace: true, resetScroll: false });
  return (
    <Group gap="lg" align="flex-end">
      <MultiSelect
        label="Series"
        placeholder={series.length === 0 ? "all" : ""}
        data={names.map((name) => ({ value: name, label: visible(name, 80) }))}
        value={series}
        onChange={(chosen) => set({ series: chosen.length === 0 ? undefined : chosen })}
        searchable
        clearable
        clearButtonProps={{ "aria-label": "Show all series" }}
        size="xs"
        w={{ base: "100%", xs: 320 }}
      />
      <Smoothing value={smooth} onChange={(value) => set({ smooth: value === 0 ? undefined : value })} />
      <Switch
        label="Logarithmic"
        size="xs"
        checked={scale === "log"}
        onChange={(event) => set({ scale: event.currentTarget.checked ? "log" : undefined })}
        mb={6}
      />
    </Group>
  );
}

/** The address changes when the slider is let go. */
export function Smoothing({ value, onChange }: { value: number; onChange: (value: number) => void }) {
  const [moved, setMoved] = useState(value);
  useEffect(() => setMoved(value), [value]);
  return (
    <div>
      <Text size="xs" fw={500} id="smoothing">
        Smoothing {moved === 0 ? "off" : moved.toFixed(2)}
      </Text>
      <Slider
        aria-label="Smoothing"
        thumbLabel="Smoothing"
        min={0}
        max={0.99}
        step={0.01}
        label={null}
        size="sm"
        w={160}
        my={9}
        value={moved}
        onChange={setMoved}
        onChangeEnd={onChange}
      />
    </div>
  );
}

/** What stands above a chart. */
export function Heading({ children }: { children: string }) {
  return (
    <Title order={2} size="h5" className="user-text">
      {children}
    </Title>
  );
}
