import { Badge, Group, Paper, Stack, Table, Text, Title } from "@mantine/core";
import { useMemo } from "react";
import { integer, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ImageGrid, type GridImage } from "../../../ui/ImageGrid";
import { thumbnailOf, type DatasetVersion, type Finding } from "../queries";
import { examplesOf, SEVERITY_COLOR, titleOf, unitOf, type Example } from "./findings";
import { DataTable } from "../../../ui/ScrollTable";

interface Props {
  finding: Finding;
  version: DatasetVersion;
  onOpen: (key: string) => void;
}

/** One finding: what it is, how much it concerns, what mends it, and what it looks like. */
export function FindingCard({ finding, version, onOpen }: Props) {
  const about = finding.estimated ? "about " : "";
  const examples = useMemo(() => examplesOf(finding), [finding]);
  return (
    <Paper withBorder p="md" component="article" aria-label={titleOf(finding.code)}>
      <Stack gap="xs">
        <Group gap="sm">
          <Badge color={SEVERITY_COLOR[finding.severity]} variant="light" radius="sm" tt="none">
            {finding.severity}
          </Badge>
          <Title order={3} size="h5">
            {titleOf(finding.code)}
          </Title>
          <Text size="sm">
            {about}
            {integer(finding.count)} {unitOf(finding)}, {about}
            {percent(finding.share)}
          </Text>
        </Group>
        <Text size="sm" className="user-text">
          {visible(finding.message)}
        </Text>
        <Text size="sm" className="user-text">
          <b>What to do: </b>
          {visible(finding.remedy)}
        </Text>
        {examples.length > 0 && <Examples examples={examples} finding={finding} version={version} onOpen={onOpen} />}
      </Stack>
    </Paper>
  );
}

function Examples({ examples, finding, version, onOpen }: Props & { examples: Example[] }) {
  const images = useMemo<GridImage[]>(
    () =>
      examples.map((example, place) => ({
        id: `${place}`,
        src: thumbnailOf(version, example, 256),
        alt: `Sample ${visible(example.key, 80)}`,
        caption: <Caption example={example} />,
      })),
    [examples, version],
  );
  // A finding about shards, or about a file of captions, has no samples to show.
  if (examples.every((example) => example.shard === "" || example.key === "")) return <ExampleTable examples={examples} />;
  return (
    <ImageGrid
      label={`Examples of ${titleOf(finding.code).toLowerCase()}`}
      images={images}
      size={120}
      captionHeight={66}
      onOpen={(place) => onOpen(examples[Number(place)]!.key)}
    />
  );
}

function Caption({ example }: { example: Example }) {
  return (
    <>
      <Text size="xs" fw={600} truncate className="user-text">
        {visible(example.key, 80)}
      </Text>
      <Text size="xs" lineClamp={2} className="user-text">
        {visible(example.detail, 200)}
      </Text>
    </>
  );
}

function ExampleTable({ examples }: { examples: Example[] }) {
  const hasPlaces = examples.some((example) => example.key !== "" || example.shard !== "");
  return (
    <DataTable fz="xs" columns={[hasPlaces && "Where", hasPlaces ? "Detail" : "Examples"]}>
      {examples.map((example, place) => (
        <Table.Tr key={place}>
          {hasPlaces && <Table.Td className="user-text">{visible(example.key || example.shard, 300)}</Table.Td>}
          <Table.Td className="user-text">{visible(example.detail, 500)}</Table.Td>
        </Table.Tr>
      ))}
    </DataTable>
  );
}
