import { Page } from "../../ui/Page";
import { Empty } from "../../ui/states";

export default function PlaygroundPage() {
  return (
    <Page title="Playground">
      <Empty title="Nothing here yet" />
    </Page>
  );
}
