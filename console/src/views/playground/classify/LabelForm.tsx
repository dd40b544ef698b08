import { NumberInput, Select, Stack, Textarea } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useState } from "react";
import { useLabelSets } from "../queries";
import { useView } from "../view";
import { DEFAULT_LABELS, DEFAULT_TEMPLATE, labelProblem, parseLabels, templateProblem } from "./labels";
import { DEFAULT_TOP } from "./ClassifyMode";

const TYPING_MS = 350;

/** Labels and templates, or a label set of the deployment. The scores follow as soon as the typing pauses. */
export function LabelForm({ deployment }: { deployment: string }) {
  const [view, set] = useView();
  return (
    <Stack gap="sm">
      <LabelSetChoice deployment={deployment} value={view.labelSet} onChange={(labelSet) => set({ labelSet })} />
      {view.labelSet === undefined && (
        <>
          <Typed
            label="Labels"
            description="separated by commas or lines"
            value={view.labels ?? DEFAULT_LABELS}
            problem={labelProblem}
            count={(text) => `${parseLabels(text).length} labels`}
            onChange={(labels) => set({ labels })}
          />
          <Typed
            label="Templates"
            description="one a line, with {} where the label goes"
            value={view.template ?? DEFAULT_TEMPLATE}
            problem={templateProblem}
            onChange={(template) => set({ template })}
          />
        </>
      )}
      <NumberInput
        label="Labels to show"
        min={1}
        max={1000}
        value={view.top ?? DEFAULT_TOP}
        onChange={(value) => set({ top: Number(value) || undefined })}
      />
    </Stack>
  );
}

interface TypedProps {
  label: string;
  description: string;
  value: string;
  problem: (text: string) => string | null;
  count?: (text: string) => string;
  onChange: (text: string) => void;
}

/** A text area whose text goes into the address when the typing pauses. */
function Typed({ label, description, value, problem, count, onChange }: TypedProps) {
  const [text, setText] = useState(value);
  const [known, setKnown] = useState(value);
  const emit = useDebouncedCallback((next: string) => {
    setKnown(next);
    onChange(next);
  }, TYPING_MS);
  // The address has changed by other means, as by going back.
  if (value !== known) {
    setKnown(value);
    setText(value);
  }
  return (
    <Textarea
      label={label}
      description={count === undefined ? description : `${count(text)}, ${description}`}
      autosize
      minRows={count === undefined ? 1 : 3}
      maxRows={12}
      value={text}
      error={problem(text)}
      onChange={(event) => {
        setText(event.currentTarget.value);
        emit(event.currentTarget.value);
      }}
    />
  );
}

function LabelSetChoice({
  deployment,
  value,
  onChange,
}: {
  deployment: string;
  value: string | undefined;
  onChange: (name: string | undefined) => void;
}) {
  const sets = useLabelSets(deployment);
  const data = (sets.data ?? []).map((each) => ({ value: each.name, label: `${each.name} (${each.labels} labels)` }));
  if (value !== undefined && !data.some((each) => each.value === value)) data.push({ value, label: value });
  if (data.length === 0) return null;
  return (
    <Select
      label="Label set"
      placeholder="none: the labels below"
      clearable
      clearButtonProps={{ "aria-label": "Use no label set" }}
      searchable={data.length > 8}
      data={data}
      value={value ?? null}
      onChange={(name) => onChange(name ?? undefined)}
    />
  );
}
