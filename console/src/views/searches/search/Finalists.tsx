import { Table, Text } from "@mantine/core";
import { bytes, milliseconds, percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import { right, ScrollTable } from "../../../ui/ScrollTable";
import { metricLabel } from "../../models/metrics";
import { Section } from "../../models/Section";
import { placeInWords } from "../front/costs";
import { ModelLink } from "../ModelLink";
import { distinctGoals, goalsOf, qualityOf } from "../quality";
import type { Search, Trial } from "../requests";

/** What was measured of each finalist in each engine. */
export function Finalists({ search }: { search: Search }) {
  const finalists = search.trials.filter(({ measurements }) => measurements.length > 0);
  if (finalists.length === 0) return null;
  const goals = distinctGoals(goalsOf(search.post));
  const latencies = finalists.flatMap(({ measurements }) => measurements.flatMap(({ latency_ms }) => Object.keys(latency_ms)));
  const places = [...new Set(latencies)].sort();
  const columns = [
    "Student",
    "Engine",
    ...places.map((place) => right(`Latency, ${placeInWords(place)}`)),
    right("Size"),
    ...goals.map(({ task, metric }) => right(visible(`${task}, ${metricLabel(metric)}`, 60))),
  ];
  return (
    <Section title="Finalists">
      <ScrollTable label="Table of finalists" aria-label="Finalists" minWidth={160 * columns.length} columns={columns} fz="sm">
        {finalists.flatMap((trial) =>
          trial.measurements.map((measured, place) => (
            <Table.Tr key={`${trial.number} ${measured.engine}`}>
              {place === 0 && <Student trial={trial} isRecommended={trial.number === search.recommended?.trial} />}
              <Table.Td className="user-text">{visible(measured.engine, 40)}</Table.Td>
              {places.map((each) => (
                <Table.Td key={each} ta="right">
                  {milliseconds(measured.latency_ms[each])}
                </Table.Td>
              ))}
              <Table.Td ta="right">{bytes(measured.bytes)}</Table.Td>
              {goals.map(({ task, metric }) => (
                <Table.Td key={`${task} ${metric}`} ta="right">
                  {percent(qualityOf(measured.quality, task, metric))}
                </Table.Td>
              ))}
            </Table.Tr>
          )),
        )}
      </ScrollTable>
    </Section>
  );
}

function Student({ trial, isRecommended }: { trial: Trial; isRecommended: boolean }) {
  return (
    <Table.Th scope="rowgroup" rowSpan={trial.measurements.length} fw={400} style={{ verticalAlign: "top" }}>
      <ModelLink model={trial.model} />
      <Text size="xs" c="dimmed">
        trial {trial.number}
        {isRecommended ? ", recommended" : ""}
      </Text>
    </Table.Th>
  );
}
