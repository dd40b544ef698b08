import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function CompareJobsPage() {
  return (
    <Page title="Compare jobs">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
