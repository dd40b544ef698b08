import { Button } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlayerPlay } from "@tabler/icons-react";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { visible } from "../../app/labels";
import { ButtonLink, TextLink } from "../../ui/links";
import { Page } from "../../ui/Page";
import { Answer } from "../../ui/states";
import { DeleteDeployment } from "./deployments/DeleteDeployment";
import { DeploymentDialog } from "./deployments/DeploymentDialog";
import { DeploymentSummary } from "./deployments/DeploymentSummary";
import { useDeployment } from "./queries";
import { TrafficView } from "./traffic/TrafficView";

const route = getRouteApi("/service/deployments/$name");

export default function DeploymentPage() {
  const { name } = route.useParams();
  const deployment = useDeployment(name);
  const navigate = useNavigate();
  const [isUpdating, update] = useDisclosure();
  const [isDeleting, deletion] = useDisclosure();
  const actions = deployment.data?.actions ?? [];
  return (
    <Page
      title={visible(name)}
      subtitle={
        <TextLink inherit to="/service" search={{ tab: "deployments" }}>
          Deployments
        </TextLink>
      }
      actions={
        <>
          {actions.includes("query") && (
            <ButtonLink to="/playground" search={{ deployment: name }} leftSection={<IconPlayerPlay size={16} aria-hidden />}>
              Try it
            </ButtonLink>
          )}
          {actions.includes("update") && (
            <Button variant="default" onClick={update.open}>
              Update
            </Button>
          )}
          {actions.includes("delete") && (
            <Button variant="default" onClick={deletion.open}>
              Delete
            </Button>
          )}
        </>
      }
    >
      <Answer of={deployment}>
        {(data) => (
          <>
            <DeploymentSummary deployment={data} />
            <TrafficView deployment={data} />
            <DeploymentDialog key={data.updated_at} opened={isUpdating} onClose={update.close} existing={data} />
            <DeleteDeployment
              name={isDeleting ? name : null}
              onClose={deletion.close}
              onDeleted={() => void navigate({ to: "/service", search: { tab: "deployments" } })}
            />
          </>
        )}
      </Answer>
    </Page>
  );
}
