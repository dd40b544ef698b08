import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function NewJobPage() {
  return (
    <Page title="New job">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
