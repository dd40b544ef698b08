import { Page } from "../ui/Page";
import { Empty } from "../ui/states";

export function NotFound() {
  return (
    <Page title="Not found">
      <Empty title="There is no such page">The address leads nowhere in this console. Choose a view on the left.</Empty>
    </Page>
  );
}
