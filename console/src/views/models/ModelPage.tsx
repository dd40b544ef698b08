import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function ModelPage() {
  return (
    <Page title="Model">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
