import { Box, Group, Paper, Stack, Text } from "@mantine/core";
import { IconCheck, IconX } from "@tabler/icons-react";
import type { Schemas } from "../../api/client";
import { percent } from "../../app/format";
import { visible } from "../../app/labels";
import { AuthorisedImage } from "../../ui/AuthorisedImage";
import { parseReference } from "./references";

interface Props {
  image: Schemas["PredictedImage"];
  names: string[];
  task: string;
  version: string;
}

/** One image, its true class, and what each model takes it for. */
export function ImageCard({ image, names, task, version }: Props) {
  const label = visible(image.label, 80);
  return (
    <Paper withBorder p="xs" role="listitem">
      <Stack gap={4} align="center">
        <AuthorisedImage src={thumbnail(version, task, image.number)} alt={`Image ${image.number + 1}, ${label}`} size={132} />
        <Text size="sm" fw={600} ta="center" className="user-text" title={visible(image.key, 200)}>
          {label}
        </Text>
        <Box w="100%">
          {image.predictions.map((prediction, place) => (
            <Prediction key={place} name={names[place] ?? ""} prediction={prediction} />
          ))}
        </Box>
      </Stack>
    </Paper>
  );
}

function Prediction({ name, prediction }: { name: string; prediction: Schemas["Prediction"] }) {
  const said = prediction.correct ? "right" : "wrong";
  return (
    <Group gap={4} wrap="nowrap" align="flex-start" mt={4}>
      {prediction.correct ? (
        <IconCheck
          size={14}
          role="img"
          aria-label={said}
          style={{ flex: "none", marginTop: 2, color: "light-dark(var(--mantine-color-teal-9), var(--mantine-color-teal-4))" }}
        />
      ) : (
        <IconX
          size={14}
          role="img"
          aria-label={said}
          style={{ flex: "none", marginTop: 2, color: "light-dark(var(--mantine-color-red-8), var(--mantine-color-red-4))" }}
        />
      )}
      <Text size="xs" className="user-text" lh={1.3}>
        <Text span inherit c="dimmed">
          {visible(name, 60)}:
        </Text>{" "}
        {visible(prediction.label, 80)} <span style={{ whiteSpace: "nowrap" }}>{percent(prediction.score, 0)}</span>
      </Text>
    </Group>
  );
}

function thumbnail(version: string, task: string, number: number): string {
  const { name, version: at } = parseReference(version);
  const model = `/v1/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(at)}`;
  return `${model}/tasks/${encodeURIComponent(task)}/images/${number}/thumbnail?size=264`;
}
