import { CloseButton, Group, Paper, SimpleGrid, Stack, Text } from "@mantine/core";
import { IconPhotoOff } from "@tabler/icons-react";
import { useState } from "react";
import { visible } from "../../../app/labels";
import { useObjectUrl } from "../../../ui/AuthorisedImage";
import { ErrorState } from "../../../ui/states";
import { Answered } from "../Answered";
import type { QueryImage } from "../images";
import { ScoreBars } from "./ScoreBars";
import { useClassification, type Asked } from "./useClassification";

interface Props {
  deployments: string[];
  images: QueryImage[];
  asked: Asked;
  isEnabled: boolean;
  onRemove: (id: string) => void;
}

/** Every image with its scores, by each deployment. */
export function Results({ deployments, images, asked, isEnabled, onRemove }: Props) {
  // Hooks cannot be in a loop: the second one is idle without a second deployment.
  const first = useClassification(deployments[0]!, images, asked, isEnabled);
  const second = useClassification(deployments[1] ?? "", images, asked, isEnabled && deployments.length > 1);
  const answers = deployments.map((deployment, place) => ({ deployment, query: place === 0 ? first : second }));
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, sm: deployments.length }}>
        {answers.map(({ deployment, query }) => (
          <div key={deployment}>
            <Answered
              deployment={deployment}
              model={query.data?.model}
              took={query.data?.milliseconds}
              isFetching={query.isFetching}
            />
            {query.isError && <ErrorState error={query.error} onRetry={() => void query.refetch()} />}
          </div>
        ))}
      </SimpleGrid>
      <SimpleGrid
        spacing="sm"
        cols={{ base: 1, lg: images.length > 1 && deployments.length === 1 ? 2 : 1 }}
        role="list"
        aria-label="Images and their scores"
      >
        {images.map((image) => (
          <Paper key={image.id} withBorder p="sm" role="listitem">
            <Group align="flex-start" wrap="nowrap" gap="md">
              <Picture image={image} isLarge={images.length === 1} onRemove={onRemove} />
              <SimpleGrid cols={{ base: 1, sm: deployments.length }} flex={1} miw={0}>
                {answers.map(({ deployment, query }) => (
                  <ScoreBars
                    key={deployment}
                    label={`Scores of ${image.name} by ${deployment}`}
                    scores={query.data?.scores.get(image.id)}
                    error={query.data?.errors.get(image.id)}
                    name={image.name}
                    isStale={query.isPlaceholderData}
                  />
                ))}
              </SimpleGrid>
            </Group>
          </Paper>
        ))}
      </SimpleGrid>
    </Stack>
  );
}

function Picture({ image, isLarge, onRemove }: { image: QueryImage; isLarge: boolean; onRemove: (id: string) => void }) {
  const url = useObjectUrl(image.content);
  const [isBroken, setBroken] = useState(false);
  const side = isLarge ? "min(240px, 34vw)" : "min(120px, 30vw)";
  return (
    <Stack gap={4} w={side} style={{ flexShrink: 0 }}>
      {isBroken ? (
        <IconPhotoOff role="img" aria-label={`${image.name}: cannot be shown`} opacity={0.5} />
      ) : (
        url !== null && (
          <img
            src={url}
            alt={image.name}
            onError={() => setBroken(true)}
            style={{ maxWidth: "100%", maxHeight: isLarge ? 240 : 120, objectFit: "contain" }}
          />
        )
      )}
      <Group gap={4} wrap="nowrap" justify="space-between">
        <Text size="xs" truncate className="user-text" title={visible(image.name)}>
          {visible(image.name, 80)}
        </Text>
        <CloseButton size="sm" aria-label={`Remove ${image.name}`} onClick={() => onRemove(image.id)} />
      </Group>
    </Stack>
  );
}
