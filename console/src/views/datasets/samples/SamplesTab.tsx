import { Badge, Button, Group, SegmentedControl, Stack, Text } from "@mantine/core";
import { useEffect, useMemo, useState } from "react";
import { integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ImageGrid, type GridImage } from "../../../ui/ImageGrid";
import { Empty, ErrorState, Loading } from "../../../ui/states";
import { thumbnailOf, useSamples, type DatasetSample, type DatasetVersion, type SampleUse } from "../queries";
import { SampleDrawer } from "./SampleDrawer";
import { USES } from "./uses";

interface Props {
  version: DatasetVersion;
  use: SampleUse | undefined;
  onUse: (use: SampleUse | undefined) => void;
}

/** The samples in the order of the shards. */
export function SamplesTab({ version, use, onUse }: Props) {
  const choices = [
    { value: "", label: "All" },
    ...Object.entries(USES).map(([value, label]) => ({ value, label: label.charAt(0).toUpperCase() + label.slice(1) })),
  ];
  return (
    <Stack>
      <SegmentedControl
        aria-label="Use"
        value={use ?? ""}
        data={choices}
        onChange={(value) => onUse(value === "" ? undefined : (value as SampleUse))}
        style={{ alignSelf: "flex-start", flexWrap: "wrap" }}
      />
      <Samples key={use ?? ""} version={version} use={use} />
    </Stack>
  );
}

function Samples({ version, use }: { version: DatasetVersion; use: SampleUse | undefined }) {
  const samples = useSamples(version, use);
  const [opened, setOpened] = useState<string | null>(null);
  const found = useMemo(() => samples.data?.pages.flatMap((page) => page.items) ?? [], [samples.data]);
  const images = useMemo<GridImage[]>(() => found.map((sample) => imageOf(version, sample)), [found, version]);
  const isLooking = samples.hasNextPage && found.length === 0 && !samples.isError;
  const { fetchNextPage } = samples;
  // With a use, a page may be empty: the next one is asked for until there is something to show.
  useEffect(() => {
    if (isLooking && !samples.isFetching) void fetchNextPage();
  }, [isLooking, samples.isFetching, fetchNextPage]);

  if (samples.isError && found.length === 0) return <ErrorState error={samples.error} onRetry={() => void samples.refetch()} />;
  if (samples.isPending || isLooking) return <Loading label="Reading samples" />;
  if (found.length === 0)
    return <Empty title="No samples">{use === undefined ? "The version has no samples." : `No sample is ${USES[use]}.`}</Empty>;
  return (
    <Stack>
      <Text size="sm" aria-live="polite">
        {integer(found.length)} {samples.hasNextPage ? `of ${integer(version.samples)} samples in all` : "samples"}
      </Text>
      <ImageGrid label="Samples" images={images} size={140} captionHeight={74} onOpen={setOpened} />
      {samples.hasNextPage && (
        <Button
          variant="default"
          loading={samples.isFetchingNextPage}
          onClick={() => void fetchNextPage()}
          style={{ alignSelf: "center" }}
        >
          Show more samples
        </Button>
      )}
      {samples.isError && <ErrorState error={samples.error} onRetry={() => void fetchNextPage()} />}
      <SampleDrawer
        version={version}
        sample={found.find((sample) => String(sample.number) === opened) ?? null}
        onClose={() => setOpened(null)}
      />
    </Stack>
  );
}

function imageOf(version: DatasetVersion, sample: DatasetSample): GridImage {
  const caption = sample.problem ?? sample.unread ?? sample.captions.join(" / ");
  return {
    id: String(sample.number),
    src: thumbnailOf(version, sample, 256),
    alt: `Sample ${visible(sample.key, 80)}`,
    caption: (
      <>
        <Text size="xs" lineClamp={2} className="user-text">
          {visible(caption, 200)}
        </Text>
        <Group gap={4} wrap="nowrap">
          <Text size="xs" truncate className="user-text">
            {visible(sample.key, 60)}
          </Text>
          {sample.use !== "training" && (
            <Badge size="xs" variant="default" tt="none" style={{ flexShrink: 0 }}>
              {USES[sample.use]}
            </Badge>
          )}
        </Group>
      </>
    ),
  };
}
