import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function DatasetPage() {
  return (
    <Page title="Dataset">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
