import { Box, Paper, SimpleGrid, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { bytes, dateTime, integer, percent } from "../../app/format";
import { visible } from "../../app/labels";
import type { DatasetVersion } from "./queries";

/** What a version has, in a few numbers. */
export function Summary({ version }: { version: DatasetVersion }) {
  const { source } = version;
  const shards = Array.isArray(source.shards) ? source.shards.join(", ") : source.shards;
  return (
    <Paper withBorder p="md">
      <SimpleGrid cols={{ base: 2, sm: 4 }} spacing="md" component="dl" m={0}>
        <Fact name="Pairs for training">{integer(version.pairs)}</Fact>
        <Fact name="Samples">{integer(version.samples)}</Fact>
        <Fact name="Held out">{percent(version.holdout, 0)}</Fact>
        <Fact name="Shards">
          {integer(version.shards)}, {bytes(version.bytes)}
          {version.compressed ? ", compressed" : ""}
        </Fact>
        <Fact name="Read from">{visible(shards, 300)}</Fact>
        <Fact name="Captions">{visible([source.caption_key, source.captions].filter(Boolean).join(" and "), 200)}</Fact>
        <Fact name="Distinct key">{source.distinct_key == null ? "none" : visible(source.distinct_key, 200)}</Fact>
        <Fact name="Registered">{dateTime(version.created_at)}</Fact>
      </SimpleGrid>
    </Paper>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <Box>
      <Text size="xs" c="dimmed" component="dt">
        {name}
      </Text>
      <Text size="sm" fw={500} component="dd" m={0} className="user-text">
        {children}
      </Text>
    </Box>
  );
}
