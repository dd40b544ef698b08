/** The indexes of the project, with the progress of those that are built. */
import { Button, Group } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus } from "@tabler/icons-react";
import { useState } from "react";
import type { Schemas } from "../../../api/client";
import { holds } from "../../../app/scopes";
import { useMe } from "../../../app/Shell";
import { Answer, Empty } from "../../../ui/states";
import { useIndexes } from "../queries";
import { DeleteIndex } from "./DeleteIndex";
import { IndexDialog } from "./IndexDialog";
import { IndexRow } from "./IndexRow";
import { ScrollTable } from "../../../ui/ScrollTable";

export function IndexesTab() {
  const indexes = useIndexes();
  const [isCreating, creation] = useDisclosure();
  const mayWrite = holds(useMe().data, "write");
  const create = mayWrite && (
    <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={creation.open}>
      Create an index
    </Button>
  );
  return (
    <>
      <Answer of={indexes}>
        {(items) =>
          items.length === 0 ? (
            <Empty title="No indexes" action={create}>
              An index holds the embeddings of images, so that a deployment of the same model finds them by text or by image.
            </Empty>
          ) : (
            <>
              <Group justify="flex-end" mb="sm">
                {create}
              </Group>
              <IndexTable items={items} />
            </>
          )
        }
      </Answer>
      <IndexDialog opened={isCreating} onClose={creation.close} />
    </>
  );
}

function IndexTable({ items }: { items: Schemas["Index"][] }) {
  const [deleted, setDeleted] = useState<string | null>(null);
  return (
    <>
      <ScrollTable
        label="Table of indexes"
        minWidth={900}
        columns={["Name", "State", "Model", "Images", "Kind", "Recall", "Size", "Search", "Updates", "Actions"]}
      >
        {items.map((item) => (
          <IndexRow key={item.name} item={item} onDelete={() => setDeleted(item.name)} />
        ))}
      </ScrollTable>
      <DeleteIndex name={deleted} onClose={() => setDeleted(null)} />
    </>
  );
}
