import { Button } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { visible } from "../../../app/labels";
import { Confirm } from "../../../ui/Confirm";
import { ConfirmDeletion } from "../../../ui/ConfirmDeletion";
import { ButtonLink } from "../../../ui/links";
import { failed } from "../../../ui/notify";
import { change, remove, searchKey, SEARCHES, type Change, type Search } from "../requests";

const LABELS: Record<Change, string> = { pause: "Pause", resume: "Resume", cancel: "Cancel" };

/** The buttons for what the search allows now. */
export function SearchActions({ search }: { search: Search }) {
  const { act, isPending } = useChange(search.id);
  const navigate = useNavigate();
  const [asked, setAsked] = useState<"cancel" | "delete" | null>(null);
  const may = (action: Search["actions"][number]) => search.actions.includes(action);
  return (
    <>
      {(["pause", "resume"] as const).map(
        (action) =>
          may(action) && (
            <Button key={action} size="xs" variant="default" loading={isPending} onClick={() => act(action)}>
              {LABELS[action]}
            </Button>
          ),
      )}
      <ButtonLink size="xs" variant="default" to="/new-search" search={{ from: search.id }}>
        Edit as new search
      </ButtonLink>
      {may("cancel") && (
        <Button size="xs" color="red" variant="outline" loading={isPending} onClick={() => setAsked("cancel")}>
          Cancel
        </Button>
      )}
      {may("delete") && (
        <Button size="xs" color="red" variant="outline" onClick={() => setAsked("delete")}>
          Delete
        </Button>
      )}
      <Confirm
        opened={asked === "cancel"}
        title="Cancel this search?"
        action="Cancel the search"
        onClose={() => setAsked(null)}
        onConfirm={() => {
          setAsked(null);
          act("cancel");
        }}
      >
        Its trials that have not ended are cancelled. Model versions of those that have ended stay.
      </Confirm>
      <ConfirmDeletion
        name={asked === "delete" ? visible(search.name, 100) : null}
        noun="search"
        remove={() => remove(search.id)}
        queryKey={[...SEARCHES, "list"]}
        onClose={() => setAsked(null)}
        onDeleted={() => void navigate({ to: "/searches" })}
      >
        Its history and its recommendation are removed. Its jobs and their model versions stay.
      </ConfirmDeletion>
    </>
  );
}

function useChange(id: string) {
  const client = useQueryClient();
  const request = useMutation({
    mutationFn: (action: Change) => change(action, id),
    onSuccess: (changed) => client.setQueryData(searchKey(id), changed),
    onError: (error, action) => {
      failed(LABELS[action], error);
      void client.invalidateQueries({ queryKey: searchKey(id) });
    },
  });
  return { act: (action: Change) => request.mutate(action), isPending: request.isPending };
}
