import { api, ask } from "../../../api/client";
import { ConfirmDeletion } from "../../../ui/ConfirmDeletion";

interface Props {
  name: string | null;
  onClose: () => void;
  onDeleted?: () => void;
}

export function DeleteDeployment(props: Props) {
  return (
    <ConfirmDeletion
      noun="deployment"
      remove={(name) => ask(api.DELETE("/v1/deployments/{name}", { params: { path: { name } } }))}
      queryKey={["deployments"]}
      {...props}
    >
      Its queries are refused from now on; those in progress are answered. The model stays in the registry.
    </ConfirmDeletion>
  );
}
