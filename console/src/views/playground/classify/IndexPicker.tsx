import { Button, Group, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { send } from "../../../api/client";
import { visible } from "../../../app/labels";
import { ImageGrid } from "../../../ui/ImageGrid";
import { ErrorState, Loading } from "../../../ui/states";
import { pictureOf, query, type Index } from "../queries";
import { imagesOf } from "../search/hitImages";

interface Props {
  deployment: string;
  indexes: Index[];
  opened: boolean;
  onClose: () => void;
  onPick: (file: File) => void;
}

/** Choose the picture of an item of an index: search for one, and take its thumbnail. */
export function IndexPicker({ opened, onClose, ...rest }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title="Choose an image from an index" size="xl">
      <Picker onClose={onClose} {...rest} />
    </Modal>
  );
}

function Picker({ deployment, indexes, onClose, onPick }: Omit<Props, "opened">) {
  const [index, setIndex] = useState(indexes[0]!.name);
  const [text, setText] = useState("");
  const [asked, setAsked] = useState("a picture");
  const hits = useQuery({
    queryKey: ["search", deployment, index, "picker", asked],
    queryFn: ({ signal }) =>
      query("/v1/deployments/{name}/search", deployment, { index, text: asked, top_k: 24, compatible: true }, signal),
  });
  const pick = useMutation({
    mutationFn: async (id: string) => pictureFile(index, id),
    onSuccess: (file) => {
      onPick(file);
      onClose();
    },
  });
  const images = useMemo(() => imagesOf(index, hits.data?.answer.hits ?? []), [index, hits.data]);
  return (
    <Stack>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setAsked(text.trim() || "a picture");
        }}
      >
        <Group align="flex-end" gap="xs">
          <Select
            label="Index"
            data={indexes.map((each) => each.name)}
            value={index}
            allowDeselect={false}
            onChange={(name) => name !== null && setIndex(name)}
          />
          <TextInput
            label="What the image shows"
            placeholder="a red bicycle"
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            flex={1}
            data-autofocus
          />
          <Button type="submit">Find</Button>
        </Group>
      </form>
      {pick.isError && <ErrorState error={pick.error} />}
      {hits.isError ? (
        <ErrorState error={hits.error} onRetry={() => void hits.refetch()} />
      ) : hits.data === undefined ? (
        <Loading label="Searching" />
      ) : null}
      {hits.data !== undefined && images.length === 0 && <Text size="sm">Nothing was found.</Text>}
      {images.length > 0 && (
        <ImageGrid
          label={`Images of ${visible(index)}`}
          images={images}
          size={110}
          captionHeight={58}
          onOpen={(id) => pick.mutate(id)}
        />
      )}
    </Stack>
  );
}

/** Return the picture of an item as a file. Throws ApiError, Unreachable. */
export async function pictureFile(index: string, id: string): Promise<File> {
  const picture = await (await send(pictureOf(index, id, 512))).blob();
  return new File([picture], id.split("/").at(-1) || "image", { type: picture.type || "image/jpeg" });
}
