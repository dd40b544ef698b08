import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function DatasetsPage() {
  return (
    <Page title="Datasets">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
