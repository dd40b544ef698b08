import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { visible } from "../../../app/labels";
import { done, failed } from "../../../ui/notify";
import { Confirm } from "../../../ui/Confirm";

/** Null: no index is about to be deleted. */
export function DeleteIndex({ name, onClose }: { name: string | null; onClose: () => void }) {
  const client = useQueryClient();
  const deletion = useMutation({
    mutationFn: (deleted: string) => ask(api.DELETE("/v1/indexes/{name}", { params: { path: { name: deleted } } })),
    onSuccess: (_, deleted) => {
      done(`Index ${deleted} is being deleted`);
      void client.invalidateQueries({ queryKey: ["indexes"] });
      onClose();
    },
    onError: (error) => failed("Deletion", error),
  });
  return (
    <Confirm
      opened={name !== null}
      title="Delete an index"
      action="Delete"
      isPending={deletion.isPending}
      onConfirm={() => name !== null && deletion.mutate(name)}
      onClose={onClose}
    >
      The embeddings of <strong className="user-text">{visible(name ?? "")}</strong>, their ids and metadata are removed. The
      shards stay where they are.
    </Confirm>
  );
}
