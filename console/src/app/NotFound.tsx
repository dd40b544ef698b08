import { Empty } from "../ui/states";

export function NotFound() {
  return <Empty title="There is no such page">The address leads nowhere in this console. Choose a view on the left.</Empty>;
}
