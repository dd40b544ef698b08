import { Table, VisuallyHidden } from "@mantine/core";

/** The head of a column with buttons. */
export function ActionsHeader() {
  return (
    <Table.Th scope="col">
      <VisuallyHidden>Actions</VisuallyHidden>
    </Table.Th>
  );
}
