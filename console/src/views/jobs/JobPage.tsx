import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function JobPage() {
  return (
    <Page title="Job">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
