/** A search: where it is, what it is asked for and what it recommends, the front, the finalists, its trials and its events. */
import { SimpleGrid } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { ago, dateTime } from "../../app/format";
import { visible } from "../../app/labels";
import { searchRoute } from "../../app/router";
import { Page } from "../../ui/Page";
import { Answer } from "../../ui/states";
import { Section } from "../models/Section";
import { Front } from "./front/Front";
import { searchQuery, type Search } from "./requests";
import { Events } from "./search/Events";
import { Finalists } from "./search/Finalists";
import { Importance } from "./search/Importance";
import { Recommendation } from "./search/Recommendation";
import { Request } from "./search/Request";
import { SearchActions } from "./search/SearchActions";
import { Status } from "./search/Status";
import { TrialTable } from "./search/TrialTable";
import { useEvents } from "./search/useEvents";

export default function SearchPage() {
  const { searchId } = searchRoute.useParams();
  const search = useQuery(searchQuery(searchId));
  if (search.data !== undefined) return <Content key={searchId} search={search.data} />;
  return (
    <Page title="Search">
      <Answer of={search}>{() => null}</Answer>
    </Page>
  );
}

function Content({ search }: { search: Search }) {
  const events = useEvents(search);
  return (
    <Page
      title={visible(search.name, 200)}
      subtitle={
        <span title={dateTime(search.created_at)}>
          {search.id} · created {ago(search.created_at)}
        </span>
      }
      actions={<SearchActions search={search} />}
    >
      <Status search={search} />
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title="Asked for">
          <Request search={search} />
        </Section>
        <Section title="Recommended">
          <Recommendation search={search} />
        </Section>
      </SimpleGrid>
      <Front search={search} />
      <Finalists search={search} />
      <Importance importance={search.importance} />
      <Section title="Trials">
        <TrialTable search={search} />
      </Section>
      <Section title="Events">
        <Events events={events} />
      </Section>
    </Page>
  );
}
