import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function JobsPage() {
  return (
    <Page title="Jobs">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
