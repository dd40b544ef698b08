import { Button } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { api, ask } from "../../api/client";
import { searchesRoute } from "../../app/router";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Empty, ErrorState, Loading } from "../../ui/states";
import { STATES, type JobState } from "../jobs/jobState";
import { CommandLine } from "../models/CommandLine";
import { SearchTable } from "./list/SearchTable";
import { StateFilter } from "./list/StateFilter";
import { intervalOf, SEARCHES } from "./requests";

const PAGE = 50;

export default function SearchesPage() {
  return (
    <Page
      title="Searches"
      subtitle="For the smallest student that meets constraints, or for the best settings; their trials are jobs"
      actions={
        <ButtonLink to="/new-search" size="sm" leftSection={<IconPlus size={16} aria-hidden />}>
          New search
        </ButtonLink>
      }
    >
      <StateFilter />
      <Searches />
    </Page>
  );
}

function Searches() {
  const { state: given } = searchesRoute.useSearch();
  const states = STATES.filter((each) => given?.includes(each));
  const list = useSearches(states);
  const found = list.data?.pages.flatMap((page) => page.items);
  if (found === undefined)
    return list.isError ? <ErrorState error={list.error} onRetry={() => void list.refetch()} /> : <Loading />;
  if (found.length === 0) return <NoSearches isFiltered={states.length > 0} />;
  return (
    <>
      <SearchTable searches={found} />
      {list.hasNextPage && (
        <Button variant="default" onClick={() => void list.fetchNextPage()} loading={list.isFetchingNextPage}>
          Show more
        </Button>
      )}
    </>
  );
}

function useSearches(states: JobState[]) {
  return useInfiniteQuery({
    queryKey: [...SEARCHES, "list", states],
    queryFn: ({ pageParam, signal }) => {
      const query = { page_size: PAGE, page_token: pageParam, ...(states.length === 0 ? {} : { state: states }) };
      return ask(api.GET("/v1/searches", { params: { query }, signal }));
    },
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next_page_token ?? undefined,
    placeholderData: keepPreviousData,
    refetchInterval: (query) => intervalOf(query.state.data?.pages.flatMap((page) => page.items)),
  });
}

function NoSearches({ isFiltered }: { isFiltered: boolean }) {
  if (isFiltered) {
    return (
      <Empty
        title="No search matches"
        action={
          <ButtonLink to="/searches" variant="default" size="xs">
            Show all searches
          </ButtonLink>
        }
      >
        Choose other states.
      </Empty>
    );
  }
  return (
    <Empty title="No searches yet" action={<ButtonLink to="/new-search">New search</ButtonLink>}>
      A search trains students of several sizes, each cut out of the teacher or of an earlier student, and finds the smallest one
      that meets your constraints: latency, size, and the quality to keep. Or it varies settings of a spec, as the learning rate.
      From a terminal: <CommandLine command="tinyclip-client searches create search.yaml --watch" />
    </Empty>
  );
}
