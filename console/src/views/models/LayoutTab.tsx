/** What a version consists of, and what it has kept of each block of what it was inherited from. */
import { Code, Group, SimpleGrid, Stack, Text } from "@mantine/core";
import type { Schemas } from "../../api/client";
import { integer } from "../../app/format";
import { visible } from "../../app/labels";
import { BlockBars, BlockLegend } from "./BlockBars";
import { Facts } from "./Facts";
import { isLayout, layoutRows, resnetSentence, uniformSentence, type Layout, type TowerRows } from "./layoutRows";
import { Section } from "./Section";

type Version = Schemas["ModelVersion"];

export function LayoutTab({ version }: { version: Version }) {
  const { layout } = version;
  if (!isLayout(layout)) return <OtherArchitecture layout={layout} />;
  const towers = layoutRows(layout, version.inherited_from, version.inherited_blocks);
  const isPruned = version.inherited_from != null || towers.some(({ name }) => uniformSentence(layout[name]) === null);
  return (
    <Stack>
      <Section title="Towers">
        <Facts
          facts={[
            ["Image tower", imageSentence(layout)],
            ["Text tower", textSentence(layout)],
            ["Embedding", `${integer(layout.embed_dim)} numbers`],
            ["Activation", layout.quick_gelu ? "QuickGELU" : "GELU"],
          ]}
        />
      </Section>
      {isPruned && towers.length > 0 && <Blocks version={version} towers={towers} />}
    </Stack>
  );
}

function imageSentence({ image }: Layout): string {
  const patch = image.patch_size == null ? "" : `, patches of ${image.patch_size} px`;
  if (image.kind === "resnet") return `${resnetSentence(image)}, images of ${image.image_size} px`;
  const blocks = uniformSentence(image) ?? `${image.layers[0]} blocks of different sizes, ${integer(image.width)} channels`;
  return `${blocks}; images of ${image.image_size} px${patch}${image.pool == null ? "" : "; attention pooling"}`;
}

function textSentence({ text }: Layout): string {
  const blocks = uniformSentence(text) ?? `${text.layers} blocks of different sizes, ${integer(text.width)} channels`;
  const tokens = `${text.context_length} tokens of a vocabulary of ${integer(text.vocab_size)}`;
  return `${blocks}; ${tokens}${text.bidirectional ? "; bidirectional" : ""}`;
}

function Blocks({ version, towers }: { version: Version; towers: TowerRows[] }) {
  const isKnown = version.inherited_from != null && isLayout(version.inherited_from);
  const parent = visible(version.teacher ?? "what it was inherited from");
  const mapped = version.inherited_blocks != null;
  return (
    <Section title="Block by block" aside={<BlockLegend />}>
      <Text size="sm" mb="sm" className="user-text">
        {isKnown
          ? `Heads and MLP units that were kept, out of those of ${parent} (grey).`
          : "Heads and MLP units of each block. What the model was inherited from is not recorded: grey is the largest block."}
        {isKnown && !mapped && " Which blocks were taken is not recorded; blocks are in the order of the student."}
      </Text>
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="xl">
        {towers.map((tower) => (
          <BlockBars key={tower.name} tower={tower} />
        ))}
      </SimpleGrid>
    </Section>
  );
}

function OtherArchitecture({ layout }: { layout: Schemas["Architecture"] }) {
  return (
    <Section title={visible(layout.family)}>
      <Facts
        facts={[
          ["Built by", layout.library],
          ["Embedding", `${integer(layout.embed_dim)} numbers`],
          ["Images", `${layout.image_size} px`],
          ["Texts", `${layout.context_length} tokens of a vocabulary of ${integer(layout.vocab_size)}`],
        ]}
      />
      <Group mt="sm">
        <details>
          <summary>Configuration</summary>
          <Code block className="user-text" tabIndex={0} style={{ maxHeight: 400, overflow: "auto" }}>
            {visible(JSON.stringify(layout.config, null, 2), 20_000)}
          </Code>
        </details>
      </Group>
    </Section>
  );
}
