/** Loads a file of text that is dropped onto its content. */
import { Box } from "@mantine/core";
import { useState, type DragEvent, type ReactNode } from "react";
import { failed } from "../../ui/notify";

/** The server refuses larger specs. */
const LIMIT = 4 << 20;

export function FileDrop({ onText, children }: { onText: (text: string) => void; children: ReactNode }) {
  const [isOver, setOver] = useState(false);
  const drop = (event: DragEvent) => {
    setOver(false);
    const file = event.dataTransfer.files[0];
    if (file === undefined) return; // text that is moved within the editor
    event.preventDefault();
    event.stopPropagation();
    void load(file, onText);
  };
  const over = (event: DragEvent) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    setOver(true);
  };
  return (
    <Box
      onDropCapture={drop}
      onDragOverCapture={over}
      onDragLeave={() => setOver(false)}
      style={{
        outline: isOver ? "2px dashed var(--mantine-primary-color-filled)" : "none",
        borderRadius: "var(--mantine-radius-md)",
      }}
    >
      {children}
    </Box>
  );
}

async function load(file: File, onText: (text: string) => void): Promise<void> {
  if (file.size > LIMIT) return failed("Loading the file", new Error(`${file.name} is larger than 4 MB`));
  try {
    onText(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
  } catch {
    failed("Loading the file", new Error(`${file.name} is not a text in UTF-8`));
  }
}
