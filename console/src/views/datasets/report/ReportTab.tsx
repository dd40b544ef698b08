import { Divider, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { useMemo, useState } from "react";
import { Answer } from "../../../ui/states";
import { SampleDrawer } from "../samples/SampleDrawer";
import { useReport, type DatasetReport, type DatasetVersion } from "../queries";
import { AgreementHistogram } from "./AgreementHistogram";
import { FindingCard } from "./FindingCard";
import { bySeverity, countsOf } from "./findings";
import { CaptionStatistics, ImageSizes, Shares } from "./Statistics";

/** What reading the data set found. */
export function ReportTab({ version }: { version: DatasetVersion }) {
  const report = useReport(version);
  return <Answer of={report}>{(found) => <Report report={found} version={version} />}</Answer>;
}

function Report({ report, version }: { report: DatasetReport; version: DatasetVersion }) {
  const [opened, setOpened] = useState<string | null>(null);
  const findings = useMemo(() => bySeverity(report.findings), [report]);
  return (
    <Stack gap="lg">
      <Stack gap="sm" component="section" aria-label="Findings">
        <Title order={2} size="h4">
          Findings: {countsOf(findings)}
        </Title>
        {findings.length === 0 && <Text size="sm">Nothing was found that stands in the way of training.</Text>}
        {findings.map((finding, place) => (
          <FindingCard key={`${finding.code} ${place}`} finding={finding} version={version} onOpen={setOpened} />
        ))}
      </Stack>
      <Divider />
      <Stack gap="md" component="section" aria-label="Statistics">
        <Title order={2} size="h4">
          Statistics
        </Title>
        {report.agreement != null && <AgreementHistogram agreement={report.agreement} />}
        <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }} spacing={48}>
          {report.caption_stats != null && <CaptionStatistics stats={report.caption_stats} />}
          {report.image_sizes != null && <ImageSizes sizes={report.image_sizes} />}
          {Object.keys(report.languages).length > 0 && <Shares title="Languages" shares={report.languages} />}
        </SimpleGrid>
      </Stack>
      <SampleDrawer version={version} sample={opened === null ? null : { key: opened }} onClose={() => setOpened(null)} />
    </Stack>
  );
}
