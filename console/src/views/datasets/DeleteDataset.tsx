import { api, ask } from "../../api/client";
import { ConfirmDeletion } from "../../ui/ConfirmDeletion";
import { DATASETS } from "./queries";

interface Props {
  name: string | null;
  onClose: () => void;
  onDeleted?: () => void;
}

export function DeleteDataset(props: Props) {
  return (
    <ConfirmDeletion
      noun="data set"
      remove={(name) => ask(api.DELETE("/v1/datasets/{name}", { params: { path: { name } } }))}
      queryKey={DATASETS}
      {...props}
    >
      All its versions, their reports and their index are removed. A registration that runs is stopped. The shards are not
      touched.
    </ConfirmDeletion>
  );
}
