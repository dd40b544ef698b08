import { getRouteApi } from "@tanstack/react-router";
import { Page } from "../../ui/Page";
import { ErrorState, Loading } from "../../ui/states";
import { useSource } from "./useSource";
import { Workbench } from "./Workbench";

const route = getRouteApi("/new-job");

export default function NewJobPage() {
  const search = route.useSearch();
  const { id, original, draft, error } = useSource(search);
  return (
    <Page
      title="New job"
      subtitle={
        search.from === undefined
          ? "Describe a student: its teacher, its data and its stages."
          : "A job's spec, to change and submit again."
      }
    >
      {original !== undefined ? (
        <Workbench key={id} source={id} original={original} initial={draft ?? original} />
      ) : error !== null ? (
        <ErrorState error={error} />
      ) : (
        <Loading />
      )}
    </Page>
  );
}
