import { Text } from "@mantine/core";
import { api, ask } from "../../api/client";
import { done } from "../../ui/notify";
import { Confirm } from "../../ui/Confirm";
import { useChange } from "./queries";

/** Ask before a data set is deleted. `name`: null for no question. */
export function DeleteDataset({
  name,
  onClose,
  onDeleted,
}: {
  name: string | null;
  onClose: () => void;
  onDeleted?: () => void;
}) {
  const removal = useChange(
    (given: string) => ask(api.DELETE("/v1/datasets/{name}", { params: { path: { name: given } } })),
    (_, given) => {
      done(`${given} is being deleted`);
      onClose();
      onDeleted?.();
    },
  );
  return (
    <Confirm
      title={`Delete ${name ?? ""}?`}
      action="Delete"
      opened={name !== null}
      isPending={removal.isPending}
      error={removal.error}
      onConfirm={() => name !== null && removal.mutate(name)}
      onClose={() => {
        removal.reset();
        onClose();
      }}
    >
      <Text size="sm">
        All its versions, their reports and their index are removed. A registration that runs is stopped. The shards are not
        touched.
      </Text>
    </Confirm>
  );
}
