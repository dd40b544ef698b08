import { Badge, Button, Checkbox, Group, Stack, Table, Text } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../api/client";
import { ago, compact, dateTime } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { Answer } from "../../ui/states";
import { CompareButton } from "./CompareButton";
import { formatMetric, metricLabel, sharesOf, valueOf } from "./metrics";
import { modelKey } from "./queries";
import { referenceOf } from "./references";
import { COMPARE, right, ScrollTable } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];

/** The versions of a model, newest first, with checkboxes for a comparison. */
export function VersionsTable({ name, shown }: { name: string; shown: number }) {
  const versions = useInfiniteQuery({
    queryKey: modelKey(name, "versions"),
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam }) =>
      ask(api.GET("/v1/models/{name}/versions", { params: { path: { name }, query: { page_size: 20, page_token: pageParam } } })),
    getNextPageParam: (page) => page.next_page_token ?? undefined,
  });
  const [selected, setSelected] = useState<string[]>([]);
  const toggle = (reference: string) =>
    setSelected((before) => (before.includes(reference) ? before.filter((each) => each !== reference) : [...before, reference]));
  return (
    <Answer of={versions}>
      {({ pages }) => (
        <Stack gap="xs">
          <Rows versions={pages.flatMap((page) => page.items)} shown={shown} selected={selected} onToggle={toggle} />
          <Group justify="space-between">
            {versions.hasNextPage ? (
              <Button
                variant="default"
                size="xs"
                loading={versions.isFetchingNextPage}
                onClick={() => void versions.fetchNextPage()}
              >
                Show older versions
              </Button>
            ) : (
              <span />
            )}
            <CompareButton models={selected} least={2} label="Compare the selected versions" size="xs" variant="default" />
          </Group>
        </Stack>
      )}
    </Answer>
  );
}

const NUMBERS = ["Image params", "Text params", "MACs"];
const COLUMNS = [COMPARE, "Version", "Aliases", ...NUMBERS.map(right), "First score", "Job", "Created"];

function Rows({
  versions,
  shown,
  selected,
  onToggle,
}: {
  versions: Version[];
  shown: number;
  selected: string[];
  onToggle: (reference: string) => void;
}) {
  return (
    <ScrollTable label="Table of versions" minWidth={920} highlightOnHover columns={COLUMNS}>
      {versions.map((version) => (
        <VersionRow
          key={version.version}
          version={version}
          isShown={version.version === shown}
          isSelected={selected.includes(referenceOf(version))}
          onToggle={onToggle}
        />
      ))}
    </ScrollTable>
  );
}

function VersionRow({
  version,
  isShown,
  isSelected,
  onToggle,
}: {
  version: Version;
  isShown: boolean;
  isSelected: boolean;
  onToggle: (reference: string) => void;
}) {
  const reference = referenceOf(version);
  return (
    <Table.Tr aria-current={isShown ? "true" : undefined}>
      <Table.Td>
        <Checkbox size="xs" aria-label={`Compare ${reference}`} checked={isSelected} onChange={() => onToggle(reference)} />
      </Table.Td>
      <Table.Th scope="row">
        <TextLink
          inherit
          to="/models/$name"
          params={{ name: version.name }}
          search={{ version: String(version.version) }}
          fw={isShown ? 700 : 400}
        >
          {version.version}
        </TextLink>
      </Table.Th>
      <Table.Td>
        <Group gap={4}>
          {version.aliases.map((alias) => (
            <Badge key={alias} variant="default" radius="sm" tt="none" fw={500}>
              {visible(alias)}
            </Badge>
          ))}
        </Group>
      </Table.Td>
      <Table.Td ta="right">{compact(version.params.image)}</Table.Td>
      <Table.Td ta="right">{compact(version.params.text_without_embedding)}</Table.Td>
      <Table.Td ta="right">{compact(version.macs)}</Table.Td>
      <Table.Td>
        <FirstScore version={version} />
      </Table.Td>
      <Table.Td>
        {version.job != null && (
          <TextLink inherit to="/jobs/$jobId" params={{ jobId: version.job }}>
            {version.job}
          </TextLink>
        )}
      </Table.Td>
      <Table.Td>
        <span title={dateTime(version.created_at)} style={{ whiteSpace: "nowrap" }}>
          {ago(version.created_at)}
        </span>
      </Table.Td>
    </Table.Tr>
  );
}

function FirstScore({ version }: { version: Version }) {
  const [first] = Object.entries(version.evaluation);
  const metric = sharesOf(first?.[1].student)[0];
  if (first === undefined || metric === undefined) return <>–</>;
  return (
    <Text size="sm" className="user-text">
      {visible(first[0])} {metricLabel(metric)} {formatMetric(metric, valueOf(first[1].student, metric))}
    </Text>
  );
}
