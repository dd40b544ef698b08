import { Button, Group, Select, Stack, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import { useState } from "react";
import { ImageDrop } from "../ImageDrop";
import type { Index } from "../queries";
import type { Images } from "../useImages";
import { useView } from "../view";
import { QueryPicture } from "./QueryPicture";

interface Props {
  indexes: Index[];
  /** The index that each deployment searches. */
  names: string[];
  deployments: string[];
  image: Images;
}

/** What is searched for, and where. */
export function QueryForm({ indexes, names, deployments, image }: Props) {
  const [view, set] = useView();
  return (
    <Stack gap="sm">
      <Group align="flex-end" gap="sm">
        <IndexSelect
          label={deployments.length > 1 ? `Index for ${deployments[0]}` : "Index"}
          indexes={indexes}
          value={names[0]!}
          onChange={(index) => set({ index, item: undefined })}
        />
        {deployments.length > 1 && (
          <IndexSelect
            label={`Index for ${deployments[1]}`}
            indexes={indexes}
            value={names[1]!}
            onChange={(secondIndex) => set({ secondIndex, item: undefined })}
          />
        )}
        <TextQuery
          key={view.query ?? ""}
          given={view.query ?? ""}
          onSearch={(query) => {
            image.clear();
            set({ query, item: undefined }, { replace: false });
          }}
        />
      </Group>
      {view.item !== undefined || (image.images.length > 0 && view.query === undefined) ? (
        <QueryPicture
          index={names[0]!}
          item={view.item}
          image={image.images[0]}
          onClear={() => (view.item !== undefined ? set({ item: undefined }) : image.clear())}
        />
      ) : null}
      <ImageDrop images={image} isMultiple={false} label="Or search by an image: drop one here, paste it, or choose" />
    </Stack>
  );
}

function TextQuery({ given, onSearch }: { given: string; onSearch: (text: string) => void }) {
  const [text, setText] = useState(given);
  return (
    <form
      role="search"
      style={{ flex: "1 1 280px" }}
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== "") onSearch(text.trim());
      }}
    >
      <Group align="flex-end" gap="xs" wrap="nowrap">
        <TextInput
          label="Text"
          placeholder="a red bicycle"
          flex={1}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        <Button type="submit" leftSection={<IconSearch size={16} aria-hidden />} disabled={text.trim() === ""}>
          Search
        </Button>
      </Group>
    </form>
  );
}

function IndexSelect({
  label,
  indexes,
  value,
  onChange,
}: {
  label: string;
  indexes: Index[];
  value: string;
  onChange: (name: string) => void;
}) {
  const data = indexes.map((index) => ({ value: index.name, label: `${index.name} · ${index.model}` }));
  if (!data.some((each) => each.value === value)) data.push({ value, label: value });
  return (
    <Select
      label={label}
      w={240}
      data={data}
      value={value}
      allowDeselect={false}
      searchable={data.length > 8}
      onChange={(name) => name !== null && onChange(name)}
    />
  );
}
