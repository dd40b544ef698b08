import { useMutation, useQueryClient, type QueryKey } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { visible } from "../app/labels";
import { Confirm } from "./Confirm";
import { done } from "./notify";

interface Props {
  /** Null: nothing is about to be deleted. */
  name: string | null;
  /** What it is, as "data set". */
  noun: string;
  remove: (name: string) => Promise<unknown>;
  /** What is read again once it is being deleted. */
  queryKey: QueryKey;
  onClose: () => void;
  onDeleted?: () => void;
  /** What is lost, and what is kept. */
  children: ReactNode;
}

/** Ask before a resource is deleted, and delete it. */
export function ConfirmDeletion({ name, noun, remove, queryKey, onClose, onDeleted, children }: Props) {
  const client = useQueryClient();
  const deletion = useMutation({
    mutationFn: remove,
    onSuccess: (_, deleted) => {
      done(`The ${noun} ${deleted} is being deleted`);
      void client.invalidateQueries({ queryKey });
      onClose();
      onDeleted?.();
    },
  });
  return (
    <Confirm
      opened={name !== null}
      title={`Delete the ${noun} ${visible(name ?? "")}?`}
      action="Delete"
      isPending={deletion.isPending}
      error={deletion.error}
      onConfirm={() => name !== null && deletion.mutate(name)}
      onClose={() => {
        deletion.reset();
        onClose();
      }}
    >
      {children}
    </Confirm>
  );
}
