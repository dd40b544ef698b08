import { Progress, Table, Text } from "@mantine/core";
import { ago, dateTime, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { stateColor } from "../../../app/theme";
import { TextLink } from "../../../ui/links";
import { right, ScrollTable, type Columns } from "../../../ui/ScrollTable";
import { StateBadge } from "../../../ui/states";
import { hasEnded } from "../../jobs/jobState";
import { ModelLink } from "../ModelLink";
import type { Search } from "../requests";
import { hoursInWords, PHASES } from "../words";

const COLUMNS: Columns = ["Name", "State", "Trials", "Recommended", right("Used"), right("Age")];

export function SearchTable({ searches }: { searches: Search[] }) {
  return (
    <ScrollTable label="Table of searches" aria-label="Searches" minWidth={720} columns={COLUMNS}>
      {searches.map((search) => (
        <Row key={search.id} search={search} />
      ))}
    </ScrollTable>
  );
}

function Row({ search }: { search: Search }) {
  const name = visible(search.name, 200);
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={400} maw={360}>
        <TextLink to="/searches/$searchId" params={{ searchId: search.id }} fw={600} size="sm" className="user-text">
          {name}
        </TextLink>
        <Text size="xs" c="dimmed" className="user-text" lineClamp={1} title={visible(search.message, 500)}>
          {visible(search.message || search.id, 300)}
        </Text>
      </Table.Th>
      <Table.Td>
        <StateBadge state={search.state} />
        {!hasEnded(search) && (
          <Text size="xs" mt={2}>
            {PHASES[search.phase]}
          </Text>
        )}
      </Table.Td>
      <Table.Td miw={110}>
        <Trials search={search} name={name} />
      </Table.Td>
      <Table.Td>
        <ModelLink model={search.recommended?.model ?? null} />
      </Table.Td>
      <Table.Td ta="right" style={{ whiteSpace: "nowrap" }}>
        {hoursInWords(search.device_hours)}
      </Table.Td>
      <Table.Td ta="right" style={{ whiteSpace: "nowrap" }} title={dateTime(search.created_at)}>
        {ago(search.created_at)}
      </Table.Td>
    </Table.Tr>
  );
}

function Trials({ search, name }: { search: Search; name: string }) {
  const { trials_ended: ended, post } = search;
  return (
    <>
      <Progress
        size={5}
        value={(100 * ended) / Math.max(1, post.budget.trials)}
        color={stateColor(search.state)}
        aria-label={`Trials of ${name} that have ended`}
      />
      <Text size="xs" mt={2}>
        {integer(ended)} of at most {integer(post.budget.trials)}
      </Text>
    </>
  );
}
