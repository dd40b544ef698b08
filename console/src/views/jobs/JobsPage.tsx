import { IconPlus } from "@tabler/icons-react";
import { lazy, Suspense, useCallback, useEffect, useMemo, useState } from "react";
import { jobsRoute } from "../../app/router";
import { useSame } from "../../app/useSame";
import { ButtonLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Empty, ErrorState, Loading } from "../../ui/states";
import { Filters } from "./list/Filters";
import { JobTable } from "./list/JobTable";
import { filterOf, type Filter } from "./list/readPage";
import { useJobList } from "./list/useJobList";

const BulkActions = lazy(() => import("./list/BulkActions"));

export default function JobsPage() {
  return (
    <Page
      title="Jobs"
      actions={
        <ButtonLink to="/new-job" size="sm" leftSection={<IconPlus size={16} aria-hidden />}>
          New job
        </ButtonLink>
      }
    >
      <Filters />
      <Jobs />
    </Page>
  );
}

function Jobs() {
  const filter = useFilter();
  const list = useJobList(filter);
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => setSelected(new Set()), [filter]);
  const select = useCallback((id: string, isSelected: boolean) => {
    setSelected((before) => {
      const after = new Set(before);
      if (isSelected) after.add(id);
      else after.delete(id);
      return after;
    });
  }, []);
  const chosen = useMemo(
    () => (selected.size === 0 ? [] : list.jobs.filter((job) => selected.has(job.id))),
    [list.jobs, selected],
  );

  if (list.isPending) return <Loading label="Loading jobs" />;
  if (list.error !== null) return <ErrorState error={list.error} onRetry={list.refresh} />;
  if (list.jobs.length === 0 && !list.hasMore)
    return <NoJobs isFiltered={filter.states.length + filter.labels.length > 0 || filter.search !== undefined} />;
  return (
    <>
      {chosen.length > 0 && (
        <Suspense>
          <BulkActions
            selected={chosen}
            onClear={() => setSelected(new Set())}
            onChanged={(jobs) => {
              jobs.forEach(list.put);
              list.refresh();
            }}
          />
        </Suspense>
      )}
      <JobTable
        list={list}
        selected={selected}
        onSelect={select}
        onSelectAll={(all) => setSelected(new Set(all ? list.jobs.map((job) => job.id) : []))}
      />
    </>
  );
}

function useFilter(): Filter {
  return useSame(filterOf(jobsRoute.useSearch()));
}

function NoJobs({ isFiltered }: { isFiltered: boolean }) {
  if (isFiltered) {
    return (
      <Empty
        title="No job matches"
        action={
          <ButtonLink to="/jobs" variant="default" size="xs">
            Show all jobs
          </ButtonLink>
        }
      >
        Choose other states, or search for something else.
      </Empty>
    );
  }
  return (
    <Empty title="No jobs yet" action={<ButtonLink to="/new-job">New job</ButtonLink>}>
      A job trains a smaller model from a teacher. The templates start with an example that takes minutes.
    </Empty>
  );
}
