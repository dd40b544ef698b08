import { newSearchRoute } from "../../app/router";
import { Page } from "../../ui/Page";
import { ErrorState, Loading } from "../../ui/states";
import { useSource } from "./create/useSource";
import { Workbench } from "./create/Workbench";

export default function NewSearchPage() {
  const chosen = newSearchRoute.useSearch();
  const { id, original, draft, error } = useSource(chosen);
  return (
    <Page
      title="New search"
      subtitle={
        chosen.from === undefined
          ? "Say what the student has to meet, or which settings to vary, and the job that each trial is like."
          : "A search's request, to change and send again."
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
