import { Group, Text } from "@mantine/core";
import { visible } from "../../../app/labels";
import type { GridImage } from "../../../ui/ImageGrid";
import { type Hit, pictureOf } from "../queries";
import { captionOf } from "./captions";

/** Hits as tiles with rank, score, id and caption. */
export function imagesOf(index: string, hits: Hit[]): GridImage[] {
  return hits.map((hit, place) => {
    const caption = captionOf(hit.metadata);
    return {
      id: hit.id,
      src: pictureOf(index, hit.id, 256),
      alt: visible(caption ?? hit.id, 120),
      caption: (
        <>
          <Group gap={6} justify="space-between" wrap="nowrap">
            <Text size="xs" fw={600}>
              {place + 1}
            </Text>
            <Text size="xs" title="cosine similarity">
              {hit.score.toFixed(3)}
            </Text>
          </Group>
          <Text size="xs" lineClamp={2} className="user-text">
            {visible(caption ?? "", 160)}
          </Text>
          <Text size="xs" truncate className="user-text" title={visible(hit.id)}>
            {visible(hit.id, 80)}
          </Text>
        </>
      ),
    };
  });
}
