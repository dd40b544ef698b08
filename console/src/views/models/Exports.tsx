/** Exports of a version to the formats of other libraries: their states, and a new one. */
import { Button, Checkbox, Group, Progress, Select, Stack, Table, Text } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../api/client";
import { bytes, percent, significant } from "../../app/format";
import { visible } from "../../app/labels";
import { LIVE_MS } from "../../app/queries";
import { done, failed } from "../../ui/notify";
import { Answer, StateBadge } from "../../ui/states";
import { CommandLine } from "./CommandLine";
import { modelKey } from "./queries";
import { referenceOf } from "./references";
import { Section } from "./Section";
import { right, ScrollTable } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];
type Export = Schemas["Export"];

const FORMATS: { value: Schemas["ExportFormat"]; label: string }[] = [
  { value: "onnx", label: "ONNX" },
  { value: "openvino", label: "OpenVINO" },
  { value: "hf", label: "transformers (CLIPModel)" },
  { value: "open_clip", label: "open_clip" },
  { value: "tinyclip", label: "TinyCLIP" },
];
const WITH_INT8 = ["onnx", "openvino"];

export function Exports({ version }: { version: Version }) {
  const path = { name: version.name, version: String(version.version) };
  const exports = useQuery({
    queryKey: modelKey(version.name, "versions", path.version, "exports"),
    queryFn: () => ask(api.GET("/v1/models/{name}/versions/{version}/exports", { params: { path } })),
    refetchInterval: (query) =>
      query.state.data?.items.some(({ state }) => !["succeeded", "failed"].includes(state)) ? LIVE_MS : false,
  });
  return (
    <Section title="Exports">
      <Stack gap="sm">
        <Answer of={exports}>
          {({ items }) =>
            items.length === 0 ? <Text size="sm">None yet.</Text> : <ExportTable version={version} exports={items} />
          }
        </Answer>
        {version.actions.includes("export") && <NewExport version={version} />}
      </Stack>
    </Section>
  );
}

function ExportTable({ version, exports }: { version: Version; exports: Export[] }) {
  const pulled = exports.find(({ state }) => state === "succeeded") ?? exports[0]!;
  return (
    <>
      <ScrollTable
        label="Table of exports"
        minWidth={560}
        columns={["Export", "State", right("Size"), "Agreement with torch (mean cosine)"]}
      >
        {exports.map((each) => (
          <Table.Tr key={each.name}>
            <Table.Th scope="row" fw={400}>
              {each.name}
            </Table.Th>
            <Table.Td>
              <State of={each} />
            </Table.Td>
            <Table.Td ta="right">
              {each.files.length > 0 ? bytes(each.files.reduce((sum, file) => sum + file.bytes, 0)) : "–"}
            </Table.Td>
            <Table.Td>{each.check == null ? "–" : agreement(each.check)}</Table.Td>
          </Table.Tr>
        ))}
      </ScrollTable>
      <CommandLine command={`tinyclip-client models pull ${referenceOf(version)} --export ${pulled.name}`} />
    </>
  );
}

function agreement({ image, text }: Schemas["ExportCheck"]): string {
  return `${significant(image.mean_cosine, 6)} for images, ${significant(text.mean_cosine, 6)} for texts`;
}

function State({ of }: { of: Export }) {
  return (
    <Stack gap={2}>
      <Group gap="xs">
        <StateBadge state={of.state} />
        {of.state === "running" && <Text size="xs">{percent(of.progress, 0)}</Text>}
      </Group>
      {of.state === "running" && <Progress value={100 * of.progress} size="xs" aria-label={`Progress of ${of.name}`} />}
      {of.error != null && (
        <Text size="xs" className="user-text">
          {visible(of.error.message)}
        </Text>
      )}
    </Stack>
  );
}

function NewExport({ version }: { version: Version }) {
  const client = useQueryClient();
  const [format, setFormat] = useState<Schemas["ExportFormat"]>("onnx");
  const [int8, setInt8] = useState(false);
  const mayInt8 = WITH_INT8.includes(format);
  const create = useMutation({
    mutationFn: () =>
      ask(
        api.POST("/v1/models/{name}/versions/{version}/exports", {
          params: { path: { name: version.name, version: String(version.version) } },
          body: { formats: [format], int8: int8 && mayInt8, vocabulary: "whole", embedding: "fp32" },
        }),
      ),
    onSuccess: () => {
      done("The export has been queued");
      void client.invalidateQueries({ queryKey: modelKey(version.name, "versions", String(version.version), "exports") });
    },
    onError: (error) => failed("The export", error),
  });
  return (
    <Group align="flex-end">
      <Select
        label="Format"
        data={FORMATS}
        value={format}
        onChange={(value) => value !== null && setFormat(value)}
        allowDeselect={false}
      />
      <Checkbox
        label="int8"
        checked={int8 && mayInt8}
        disabled={!mayInt8}
        onChange={(event) => setInt8(event.currentTarget.checked)}
        mb={9}
      />
      <Button variant="default" loading={create.isPending} onClick={() => create.mutate()}>
        Export
      </Button>
    </Group>
  );
}
