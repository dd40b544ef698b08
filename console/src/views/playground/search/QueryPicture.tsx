import { Button, Group, Paper, Text } from "@mantine/core";
import { visible } from "../../../app/labels";
import { AuthorisedImage, useObjectUrl } from "../../../ui/AuthorisedImage";
import type { QueryImage } from "../images";
import { pictureOf } from "../queries";

interface Props {
  index: string;
  item: string | undefined;
  image: QueryImage | undefined;
  onClear: () => void;
}

/** The image or the item that is searched for. */
export function QueryPicture({ index, item, image, onClear }: Props) {
  const name = item ?? image?.name ?? "";
  const url = useObjectUrl(item === undefined ? image?.content : undefined);
  return (
    <Paper withBorder p="xs">
      <Group gap="sm" wrap="nowrap">
        {item !== undefined ? (
          <AuthorisedImage src={pictureOf(index, item, 256)} alt={visible(name, 80)} size={56} />
        ) : (
          url !== null && <img src={url} alt={name} style={{ width: 56, height: 56, objectFit: "contain" }} />
        )}
        <Text size="sm" flex={1} className="user-text">
          {item !== undefined ? "Items like " : "Items near "}
          <b>{visible(name, 120)}</b>
        </Text>
        <Button size="compact-sm" variant="default" onClick={onClear}>
          Clear
        </Button>
      </Group>
    </Paper>
  );
}
