import { Center, Code, Drawer, Stack, Text, Title } from "@mantine/core";
import { integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { AuthorisedImage } from "../../../ui/AuthorisedImage";
import { Rows } from "../report/Statistics";
import { thumbnailOf, type DatasetSample, type DatasetVersion } from "../queries";
import { USES } from "./uses";

interface Props {
  version: DatasetVersion;
  /** Null: closed. An example of a finding has only its key. */
  sample: DatasetSample | { key: string } | null;
  onClose: () => void;
}

/** All that is known of one sample. */
export function SampleDrawer({ version, sample, onClose }: Props) {
  return (
    <Drawer opened={sample !== null} onClose={onClose} position="right" size="md" title="Sample">
      {sample !== null && (
        <Stack>
          <Center>
            <AuthorisedImage src={thumbnailOf(version, sample, 512)} alt={`Sample ${visible(sample.key, 80)}`} size={360} />
          </Center>
          {"use" in sample ? (
            <Details sample={sample} />
          ) : (
            <Text size="sm" className="user-text">
              Key <Code>{visible(sample.key)}</Code>
            </Text>
          )}
        </Stack>
      )}
    </Drawer>
  );
}

function Details({ sample }: { sample: DatasetSample }) {
  return (
    <>
      <Title order={3} size="h5">
        {sample.captions.length === 1 ? "Caption" : `${sample.captions.length} captions`}
      </Title>
      <Stack gap={4} component="ul" m={0} pl="md">
        {sample.captions.map((caption, place) => (
          <Text key={place} component="li" size="sm" className="user-text">
            {visible(caption)}
          </Text>
        ))}
      </Stack>
      {[sample.problem, sample.unread].map((problem) =>
        problem == null ? null : (
          <Text key={problem} size="sm" c="red" className="user-text">
            {visible(problem)}
          </Text>
        ),
      )}
      <Rows
        rows={[
          ["Key", visible(sample.key)],
          ["Number", integer(sample.number)],
          ["Shard", visible(sample.shard)],
          ["Size", sample.width > 0 ? `${sample.width} × ${sample.height} pixels` : "not readable"],
          ["Use", USES[sample.use]],
        ]}
      />
    </>
  );
}
