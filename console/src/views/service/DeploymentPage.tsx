import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function DeploymentPage() {
  return (
    <Page title="Deployment">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
