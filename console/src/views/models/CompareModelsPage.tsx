import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function CompareModelsPage() {
  return (
    <Page title="Compare models">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
