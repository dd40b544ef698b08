import { Button, Grid, Group, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMemo } from "react";
import { Empty } from "../../../ui/states";
import { ImageDrop } from "../ImageDrop";
import { MOST_IMAGES } from "../images";
import { useIndexes } from "../queries";
import type { Images } from "../useImages";
import { useView } from "../view";
import { DEFAULT_LABELS, DEFAULT_TEMPLATE, labelProblem, parseLabels, parseTemplates, templateProblem } from "./labels";
import { IndexPicker } from "./IndexPicker";
import { LabelForm } from "./LabelForm";
import { Results } from "./Results";
import type { Asked } from "./useClassification";

export const DEFAULT_TOP = 5;

/** Images on one side, what they are compared with beside them, and the scores. */
export function ClassifyMode({ deployments, images }: { deployments: string[]; images: Images }) {
  const [view] = useView();
  const { labels = DEFAULT_LABELS, template = DEFAULT_TEMPLATE, labelSet, top = DEFAULT_TOP } = view;
  const asked = useMemo<Asked>(
    () => ({
      labels: parseLabels(labels),
      templates: parseTemplates(template),
      labelSet,
      top: Math.min(Math.max(1, Math.round(top)), 1000),
    }),
    [labels, template, labelSet, top],
  );
  const isComplete = labelSet !== undefined || (labelProblem(labels) === null && templateProblem(template) === null);
  return (
    <Grid gap="lg">
      <Grid.Col span={{ base: 12, md: 4 }}>
        <Stack>
          <ImageDrop images={images} isMultiple label={`Drop up to ${MOST_IMAGES} images here, paste one, or choose`}>
            <FromIndex deployment={deployments[0]!} images={images} />
          </ImageDrop>
          <LabelForm deployment={deployments[0]!} />
        </Stack>
      </Grid.Col>
      <Grid.Col span={{ base: 12, md: 8 }}>
        {images.images.length === 0 ? (
          <Empty title="Which label fits best?">
            Choose an image: its scores appear here, and follow the labels as you change them.
          </Empty>
        ) : (
          <Stack gap="xs">
            <Group justify="space-between">
              <Text size="sm">{images.images.length === 1 ? "1 image" : `${images.images.length} images`}</Text>
              <Button size="compact-sm" variant="subtle" onClick={images.clear}>
                Remove all
              </Button>
            </Group>
            <Results
              deployments={deployments}
              images={images.images}
              asked={asked}
              isEnabled={isComplete}
              onRemove={images.remove}
            />
          </Stack>
        )}
      </Grid.Col>
    </Grid>
  );
}

function FromIndex({ deployment, images }: { deployment: string; images: Images }) {
  const [isOpen, { open, close }] = useDisclosure();
  const indexes = useIndexes();
  if (!indexes.data?.length) return null;
  return (
    <>
      <Button size="xs" variant="default" onClick={open}>
        From an index
      </Button>
      <IndexPicker
        deployment={deployment}
        indexes={indexes.data}
        opened={isOpen}
        onClose={close}
        onPick={(file) => images.add([file])}
      />
    </>
  );
}
