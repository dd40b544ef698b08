import { useMutation, useQueryClient } from "@tanstack/react-query";
import { api, ask } from "../../../api/client";
import { visible } from "../../../app/labels";
import { done, failed } from "../../../ui/notify";
import { Confirm } from "../../../ui/Confirm";

/** Null: no deployment is about to be deleted. */
export function DeleteDeployment({
  name,
  onClose,
  onDeleted,
}: {
  name: string | null;
  onClose: () => void;
  onDeleted?: () => void;
}) {
  const client = useQueryClient();
  const deletion = useMutation({
    mutationFn: (deleted: string) => ask(api.DELETE("/v1/deployments/{name}", { params: { path: { name: deleted } } })),
    onSuccess: (_, deleted) => {
      done(`Deployment ${deleted} is being deleted`);
      void client.invalidateQueries({ queryKey: ["deployments"] });
      onClose();
      onDeleted?.();
    },
    onError: (error) => failed("Deletion", error),
  });
  return (
    <Confirm
      opened={name !== null}
      title="Delete a deployment"
      action="Delete"
      isPending={deletion.isPending}
      onConfirm={() => name !== null && deletion.mutate(name)}
      onClose={onClose}
    >
      Queries to <strong className="user-text">{visible(name ?? "")}</strong> are refused from now on; those in progress are
      answered. The model stays in the registry.
    </Confirm>
  );
}
