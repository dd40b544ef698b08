import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function TokensPage() {
  return (
    <Page title="Tokens">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
