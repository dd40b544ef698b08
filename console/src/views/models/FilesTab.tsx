/** A version's files to download, and its exports. */
import { Button, Stack, Table, Text } from "@mantine/core";
import { IconDownload } from "@tabler/icons-react";
import { useState } from "react";
import { send, type Schemas } from "../../api/client";
import { bytes } from "../../app/format";
import { visible } from "../../app/labels";
import { failed } from "../../ui/notify";
import { CommandLine } from "./CommandLine";
import { Exports } from "./Exports";
import { referenceOf } from "./references";
import { Section } from "./Section";
import { right, ScrollTable } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];

/** A browser keeps the whole file in memory until it is saved, because the request needs the token in a header. */
const MOST_BYTES = 512e6;

export function FilesTab({ version }: { version: Version }) {
  const total = version.files.reduce((sum, file) => sum + file.bytes, 0);
  return (
    <Stack>
      <Section title="Files" aside={<Text size="sm">{bytes(total)} in all</Text>}>
        <Stack gap="sm">
          <Text size="sm">All files together, as a folder that open_clip opens if it knows the layout:</Text>
          <CommandLine command={`tinyclip-client models pull ${referenceOf(version)}`} />
          <FileTable version={version} />
        </Stack>
      </Section>
      <Exports version={version} />
    </Stack>
  );
}

function FileTable({ version }: { version: Version }) {
  return (
    <ScrollTable
      label="Table of files"
      minWidth={480}
      columns={["Path", right("Size"), "SHA-256", { head: "Download", isHidden: true }]}
    >
      {version.files.map((file) => (
        <Table.Tr key={file.path}>
          <Table.Th scope="row" fw={400} className="user-text">
            {visible(file.path)}
          </Table.Th>
          <Table.Td ta="right">{bytes(file.bytes)}</Table.Td>
          <Table.Td>
            <code title={file.sha256}>{file.sha256.slice(0, 12)}…</code>
          </Table.Td>
          <Table.Td ta="right">
            {file.bytes <= MOST_BYTES ? (
              <Download version={version} path={file.path} />
            ) : (
              <Text size="xs">use the command above</Text>
            )}
          </Table.Td>
        </Table.Tr>
      ))}
    </ScrollTable>
  );
}

function Download({ version, path }: { version: Version; path: string }) {
  const [loading, setLoading] = useState(false);
  async function download(): Promise<void> {
    setLoading(true);
    try {
      const where = path.split("/").map(encodeURIComponent).join("/");
      const answer = await send(`/v1/models/${encodeURIComponent(version.name)}/versions/${version.version}/files/${where}`);
      save(await answer.blob(), path.split("/").at(-1) ?? "file");
    } catch (error) {
      failed("The download", error);
    } finally {
      setLoading(false);
    }
  }
  return (
    <Button
      size="compact-xs"
      variant="subtle"
      leftSection={<IconDownload size={14} aria-hidden />}
      loading={loading}
      onClick={() => void download()}
      aria-label={`Download ${visible(path)}`}
    >
      Download
    </Button>
  );
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
