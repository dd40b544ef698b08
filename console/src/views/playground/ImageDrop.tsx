/** Where images are dropped, pasted or chosen. */
import { Alert, Button, Flex, Group, Paper, Stack, Text } from "@mantine/core";
import { IconPhotoUp } from "@tabler/icons-react";
import { useEffect, useRef, useState, type DragEvent, type ReactNode } from "react";
import { visible } from "../../app/labels";
import type { Images } from "./useImages";
import classes from "./ImageDrop.module.css";

const ACCEPTED = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

interface Props {
  images: Images;
  /** With one image, the place is a flat row. */
  isMultiple: boolean;
  label: string;
  children?: ReactNode;
}

export function ImageDrop({ images, isMultiple, label, children }: Props) {
  const [isOver, setOver] = useState(false);
  const { add } = images;
  usePaste(add);
  const onDrop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    add([...event.dataTransfer.files]);
  };
  return (
    <Stack gap="xs">
      <Paper
        className={classes.drop}
        data-over={isOver || undefined}
        onDrop={onDrop}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        p={isMultiple ? "md" : "xs"}
      >
        <Flex direction={isMultiple ? "column" : "row"} align="center" justify="center" gap="xs" wrap="wrap">
          <IconPhotoUp size={isMultiple ? 28 : 20} opacity={0.7} aria-hidden />
          <Text size="sm" ta="center">
            {label}
          </Text>
          <Group gap="xs" justify="center">
            <FileChooser isMultiple={isMultiple} onFiles={add} />
            {children}
          </Group>
        </Flex>
      </Paper>
      {images.problems.length > 0 && (
        <Alert color="orange" variant="light" title="Not used" role="alert">
          {images.problems.map((problem) => (
            <Text key={problem} size="sm" className="user-text">
              {visible(problem, 300)}
            </Text>
          ))}
        </Alert>
      )}
    </Stack>
  );
}

function FileChooser({ isMultiple, onFiles }: { isMultiple: boolean; onFiles: (files: File[]) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const label = isMultiple ? "Choose images" : "Choose an image";
  return (
    <>
      <Button size="xs" variant={isMultiple ? "filled" : "default"} onClick={() => input.current?.click()}>
        {label}
      </Button>
      <input
        ref={input}
        type="file"
        accept={ACCEPTED}
        multiple={isMultiple}
        hidden
        aria-label={label}
        data-testid="image-file"
        onChange={(event) => {
          onFiles([...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = ""; // the same file can be chosen again
        }}
      />
    </>
  );
}

/** Take images from the clipboard, wherever the focus is; pasted text goes to its field as usual. */
function usePaste(add: (files: File[]) => void) {
  useEffect(() => {
    const onPaste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
      if (files.length === 0) return;
      event.preventDefault();
      add(files);
    };
    document.addEventListener("paste", onPaste);
    return () => document.removeEventListener("paste", onPaste);
  }, [add]);
}
