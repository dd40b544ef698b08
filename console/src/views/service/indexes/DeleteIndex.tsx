import { api, ask } from "../../../api/client";
import { ConfirmDeletion } from "../../../ui/ConfirmDeletion";

export function DeleteIndex(props: { name: string | null; onClose: () => void }) {
  return (
    <ConfirmDeletion
      noun="index"
      remove={(name) => ask(api.DELETE("/v1/indexes/{name}", { params: { path: { name } } }))}
      queryKey={["indexes"]}
      {...props}
    >
      Its embeddings, ids and metadata are removed. The shards stay where they are.
    </ConfirmDeletion>
  );
}
