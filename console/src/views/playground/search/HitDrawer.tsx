import { Button, Center, Drawer, Group, Stack, Table } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { AuthorisedImage } from "../../../ui/AuthorisedImage";
import { ErrorState } from "../../../ui/states";
import { pictureFile } from "../classify/IndexPicker";
import { type Hit, pictureOf } from "../queries";
import { captionOf, flat, shown } from "./captions";

interface Props {
  index: string;
  /** Null: closed. */
  hit: Hit | null;
  rank: number;
  onClose: () => void;
  onMoreLike: (id: string) => void;
  onClassify: (file: File) => void;
}

/** All that is known of a hit, and what can be done with it. */
export function HitDrawer({ index, hit, rank, onClose, onMoreLike, onClassify }: Props) {
  const pick = useMutation({ mutationFn: (id: string) => pictureFile(index, id), onSuccess: onClassify });
  return (
    <Drawer opened={hit !== null} onClose={onClose} position="right" size="md" title={`Hit ${rank}`}>
      {hit !== null && (
        <Stack>
          <Center>
            <AuthorisedImage
              src={pictureOf(index, hit.id, 512)}
              alt={visible(captionOf(hit.metadata) ?? hit.id, 120)}
              size={360}
            />
          </Center>
          <Group gap="xs">
            <Button onClick={() => onMoreLike(hit.id)}>More like this</Button>
            <Button variant="default" loading={pick.isPending} onClick={() => pick.mutate(hit.id)}>
              Classify this image
            </Button>
          </Group>
          {pick.isError && <ErrorState error={pick.error} />}
          <Metadata hit={hit} />
        </Stack>
      )}
    </Drawer>
  );
}

function Metadata({ hit }: { hit: Hit }) {
  const rows: [string, unknown][] = [["id", hit.id], ["score", significant(hit.score, 4)], ...flat(hit.metadata)];
  return (
    <Table fz="sm" layout="fixed">
      <Table.Tbody>
        {rows.map(([name, value], place) => (
          <Table.Tr key={`${name} ${place}`}>
            <Table.Th scope="row" w="35%" fw={500} className="user-text">
              {visible(name, 100)}
            </Table.Th>
            <Table.Td className="user-text">{visible(shown(value), 4000)}</Table.Td>
          </Table.Tr>
        ))}
      </Table.Tbody>
    </Table>
  );
}
