import { Box, Group, Stack, Table, Text, Title } from "@mantine/core";
import type { Schemas } from "../../../api/client";
import { integer, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SERIES } from "../../../app/theme";
import { binsOf, outline, type Bin } from "./histogram";
import { DataTable, right } from "../../../ui/ScrollTable";

const WIDTH = 600;
const HEIGHT = 140;
const [TRUE_COLOR, SHUFFLED_COLOR] = [SERIES[0]!, SERIES[1]!];

/** The similarities that the teacher finds in true pairs, against those of shuffled ones. */
export function AgreementHistogram({ agreement }: { agreement: Schemas["AgreementReport"] }) {
  const bins = binsOf(agreement.bins, agreement.true_counts, agreement.shuffled_counts);
  return (
    <Stack gap="xs">
      <Title order={3} size="h5">
        Agreement with the teacher
      </Title>
      <Text size="sm">
        A true pair is more similar than a shuffled one in <b>{percent(agreement.auc)}</b> of all cases (AUC{" "}
        {significant(agreement.auc)}). Near 50 %, the captions do not describe the images as the teacher sees them.
      </Text>
      <Group gap="lg">
        <Key color={TRUE_COLOR} label={`True pairs, mean ${significant(agreement.true_mean)}`} />
        <Key color={SHUFFLED_COLOR} label={`Shuffled pairs, mean ${significant(agreement.shuffled_mean)}`} />
      </Group>
      {bins.length > 0 && <Plot bins={bins} agreement={agreement} />}
      <Text size="xs" c="dimmed" className="user-text">
        {integer(agreement.pairs)} pairs, by {visible(agreement.teacher)}
      </Text>
      {bins.length > 0 && (
        <details>
          <summary>Show the numbers</summary>
          <Numbers bins={bins} />
        </details>
      )}
    </Stack>
  );
}

function Plot({ bins, agreement }: { bins: Bin[]; agreement: Schemas["AgreementReport"] }) {
  const [ofTrue, ofShuffled] = [significant(agreement.true_mean), significant(agreement.shuffled_mean)];
  const label = `Histogram of similarities: true pairs have ${ofTrue} on average, shuffled ones ${ofShuffled}`;
  return (
    <Box maw={WIDTH}>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        width="100%"
        role="img"
        aria-label={label}
        preserveAspectRatio="none"
        style={{ height: HEIGHT, display: "block" }}
      >
        <path
          d={outline(bins, (bin) => bin.shuffledShare, WIDTH, HEIGHT)}
          fill={SHUFFLED_COLOR}
          fillOpacity={0.35}
          stroke={SHUFFLED_COLOR}
          vectorEffect="non-scaling-stroke"
        />
        <path
          d={outline(bins, (bin) => bin.trueShare, WIDTH, HEIGHT)}
          fill={TRUE_COLOR}
          fillOpacity={0.35}
          stroke={TRUE_COLOR}
          vectorEffect="non-scaling-stroke"
        />
      </svg>
      <Group justify="space-between">
        <Text size="xs">{significant(bins[0]!.from, 2)}</Text>
        <Text size="xs">similarity</Text>
        <Text size="xs">{significant(bins.at(-1)!.to, 2)}</Text>
      </Group>
    </Box>
  );
}

function Key({ color, label }: { color: string; label: string }) {
  return (
    <Group gap={6}>
      <Box w={12} h={12} bg={color} style={{ borderRadius: 3 }} aria-hidden />
      <Text size="sm">{label}</Text>
    </Group>
  );
}

function Numbers({ bins }: { bins: Bin[] }) {
  return (
    <DataTable maw={WIDTH} mt="xs" fz="xs" columns={["Similarity", right("True pairs"), right("Shuffled pairs")]}>
      {bins.map((bin) => (
        <Table.Tr key={bin.from}>
          <Table.Th scope="row" fw={400}>
            {significant(bin.from, 2)} to {significant(bin.to, 2)}
          </Table.Th>
          <Table.Td ta="right">{integer(bin.trueCount)}</Table.Td>
          <Table.Td ta="right">{integer(bin.shuffledCount)}</Table.Td>
        </Table.Tr>
      ))}
    </DataTable>
  );
}
