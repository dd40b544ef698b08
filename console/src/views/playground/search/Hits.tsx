import { ActionIcon, Alert, Stack, Text } from "@mantine/core";
import { IconPhotoOff, IconPhotoSearch } from "@tabler/icons-react";
import { useQuery, type UseQueryResult } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { send } from "../../../api/client";
import { ApiError } from "../../../api/problems";
import { integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { ImageGrid } from "../../../ui/ImageGrid";
import { ErrorState, Loading } from "../../../ui/states";
import { Answered } from "../Answered";
import { pictureOf, type SearchResponse, type Timed } from "../queries";
import { HitDrawer } from "./HitDrawer";
import { imagesOf } from "./hitImages";

interface Props {
  deployment: string;
  index: string;
  search: UseQueryResult<Timed<SearchResponse>>;
  onMoreLike: (id: string) => void;
  onClassify: (file: File) => void;
  /** Side of a thumbnail in pixels. */
  size: number;
}

/** The hits of one deployment, best first. */
export function Hits({ deployment, index, search, onMoreLike, onClassify, size }: Props) {
  const [opened, setOpened] = useState<string | null>(null);
  const hits = search.data?.answer.hits;
  const images = useMemo(() => imagesOf(index, hits ?? []), [index, hits]);
  const place = hits?.findIndex((hit) => hit.id === opened) ?? -1;
  return (
    <Stack gap="xs" component="section" aria-label={`Hits of ${deployment}`}>
      <Answered
        deployment={deployment}
        model={search.data?.answer.model}
        took={search.data?.milliseconds}
        isFetching={search.isFetching}
      />
      {search.isError && hits === undefined ? (
        <ErrorState error={search.error} onRetry={() => void search.refetch()} />
      ) : hits === undefined ? (
        <Loading label="Searching" />
      ) : (
        <>
          <Text size="sm">
            {hits.length === 0 ? "Nothing was found. " : `${integer(hits.length)} ${hits.length === 1 ? "hit" : "hits"} `}
            {search.data?.answer.kind === "hnsw" ? "by an approximate search" : "by an exact search"}
          </Text>
          {hits.length > 0 && <WithoutPictures index={index} id={hits[0]!.id} />}
          <ImageGrid
            label={`Hits of ${deployment} in ${index}`}
            images={images}
            size={size}
            captionHeight={78}
            onOpen={setOpened}
            action={(id, tabIndex) => <MoreLike id={id} tabIndex={tabIndex} onMoreLike={onMoreLike} />}
          />
        </>
      )}
      <HitDrawer
        index={index}
        hit={hits?.[place] ?? null}
        rank={place + 1}
        onClose={() => setOpened(null)}
        onMoreLike={(id) => {
          setOpened(null);
          onMoreLike(id);
        }}
        onClassify={onClassify}
      />
    </Stack>
  );
}

function MoreLike({ id, tabIndex, onMoreLike }: { id: string; tabIndex: number; onMoreLike: (id: string) => void }) {
  return (
    <ActionIcon
      variant="default"
      size="sm"
      tabIndex={tabIndex}
      title="More like this"
      aria-label={`More like ${visible(id, 80)}`}
      onClick={() => onMoreLike(id)}
    >
      <IconPhotoSearch size={14} />
    </ActionIcon>
  );
}

/** Explain why there are no thumbnails, if the best hit has none for good. */
function WithoutPictures({ index, id }: { index: string; id: string }) {
  const src = pictureOf(index, id, 256);
  // The same answer as that of the tile.
  const picture = useQuery({
    queryKey: ["image", src],
    queryFn: async ({ signal }) => (await send(src, { signal })).blob(),
    staleTime: Infinity,
    gcTime: 60_000,
  });
  if (!(picture.error instanceof ApiError) || picture.error.problem.code !== "no_thumbnail") return null;
  return (
    <Alert color="gray" variant="light" icon={<IconPhotoOff />} title="There is no picture to show">
      <Text size="sm" className="user-text">
        {visible(picture.error.message, 400)}
      </Text>
    </Alert>
  );
}
