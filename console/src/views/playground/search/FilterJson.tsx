import { Textarea } from "@mantine/core";
import { useState } from "react";
import { parseFilter } from "./filters";

/** The filter as JSON; it is used as soon as it can be read. */
export function FilterJson({ given, onChange }: { given: string | undefined; onChange: (filter: string | undefined) => void }) {
  const [text, setText] = useState(given ?? "");
  const change = (next: string) => {
    setText(next);
    if (problemOf(next) !== null) return;
    const filter = parseFilter(next);
    onChange(filter === null ? undefined : JSON.stringify(filter));
  };
  return (
    <Textarea
      size="xs"
      aria-label="Filter as JSON"
      placeholder='{"year": {"gte": 2000, "lt": 2010}, "tags": ["red", "blue"]}'
      autosize
      minRows={2}
      maxRows={10}
      miw={380}
      styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }}
      value={text}
      error={problemOf(text)}
      onChange={(event) => change(event.currentTarget.value)}
    />
  );
}

function problemOf(text: string): string | null {
  try {
    parseFilter(text);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
