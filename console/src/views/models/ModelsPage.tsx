import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function ModelsPage() {
  return (
    <Page title="Models">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
