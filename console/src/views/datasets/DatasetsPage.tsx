import { Button } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus } from "@tabler/icons-react";
import { Page } from "../../ui/Page";
import { Empty, ErrorState, Loading } from "../../ui/states";
import { DatasetTable } from "./DatasetTable";
import { useDatasets, useMayWrite } from "./queries";
import { RegisterModal } from "./register/RegisterModal";

export default function DatasetsPage() {
  const datasets = useDatasets();
  const mayWrite = useMayWrite();
  const [isOpen, { open, close }] = useDisclosure();
  const register = mayWrite && (
    <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={open}>
      Register a data set
    </Button>
  );
  const found = datasets.data?.pages.flatMap((page) => page.items);
  return (
    <Page
      title="Data sets"
      subtitle="Images with captions that models are trained on, read once and checked before any training"
      actions={found?.length ? register : undefined}
    >
      {found === undefined ? (
        datasets.isError ? (
          <ErrorState error={datasets.error} onRetry={() => void datasets.refetch()} />
        ) : (
          <Loading />
        )
      ) : found.length === 0 ? (
        <Empty title="No data set is registered" action={register}>
          A data set is a set of WebDataset shards with images and captions. It is read once; every problem that is found is
          reported with examples and a remedy.
        </Empty>
      ) : (
        <DatasetTable datasets={found} />
      )}
      {datasets.hasNextPage && (
        <Button variant="default" loading={datasets.isFetchingNextPage} onClick={() => void datasets.fetchNextPage()}>
          Show more
        </Button>
      )}
      <RegisterModal opened={isOpen} onClose={close} />
    </Page>
  );
}
