import { SimpleGrid, Stack, Text } from "@mantine/core";
import { useMemo, useState } from "react";
import { TextLink } from "../../../ui/links";
import { Answer, Empty } from "../../../ui/states";
import { useIndexes, type Deployment, type Index } from "../queries";
import type { Images } from "../useImages";
import { useView, type View } from "../view";
import type { Hit } from "../wire";
import { fieldsOf, readFilter } from "./filters";
import { Hits } from "./Hits";
import { QueryForm } from "./QueryForm";
import { SearchOptions } from "./SearchOptions";
import { useSearch, type SearchAsked, type Wanted } from "./useSearch";

interface Props {
  deployments: string[];
  all: Deployment[];
  image: Images;
  onClassify: (file: File) => void;
}

export const DEFAULT_HITS = 20;

export function SearchMode(props: Props) {
  const indexes = useIndexes();
  return <Answer of={indexes}>{(found) => (found.length === 0 ? <NoIndex /> : <Search {...props} indexes={found} />)}</Answer>;
}

function NoIndex() {
  return (
    <Empty title="There is no index">
      An index is a set of images that a deployed model searches. Build one with <code>tinyclip-client indexes create</code>; it then appears here and under <TextLink to="/service">Service</TextLink>.
    </Empty>
  );
}

function Search({ deployments, all, image, onClassify, indexes }: Props & { indexes: Index[] }) {
  const [view, set] = useView();
  const wanted = wantedOf(view, image);
  const names = deployments.map((name, place) => indexFor(name, place === 0 ? view.index : (view.secondIndex ?? view.index), all, indexes));
  const top = Math.min(Math.max(1, Math.round(view.top ?? DEFAULT_HITS)), 1000);
  const filter = useMemo(() => readFilter(view.filter), [view.filter]);
  const asked = (index: string): SearchAsked => ({ index, wanted, top, filter, isCompatible: view.compatible === "yes" });
  const first = useSearch(deployments[0]!, asked(names[0]!));
  const second = useSearch(deployments[1] ?? "", deployments.length > 1 ? asked(names[1]!) : null);
  const fields = useFields(names[0]!, first.data?.answer.hits);
  const queries = [first, second].slice(0, deployments.length);
  return (
    <Stack>
      <QueryForm indexes={indexes} names={names} deployments={deployments} image={image} />
      <SearchOptions fields={fields} />
      {wanted === null ? (
        <Empty title="What are you looking for?">Describe it in words, drop an image, or take a hit and ask for more like it.</Empty>
      ) : (
        <SimpleGrid cols={{ base: 1, md: deployments.length }}>
          {deployments.map((deployment, place) => (
            <Hits
              key={deployment}
              deployment={deployment}
              index={names[place]!}
              search={queries[place]!}
              onMoreLike={(item) => {
                image.clear();
                // The item is of this index: both deployments look for it there.
                set({ item, query: undefined, index: names[place], secondIndex: undefined }, { replace: false });
              }}
              onClassify={onClassify}
            />
          ))}
        </SimpleGrid>
      )}
      {wanted !== null && deployments.length > 1 && names[0] !== names[1] && <Text size="xs">The two deployments search different indexes: scores of different models cannot be compared, ranks can.</Text>}
    </Stack>
  );
}

/** What the address and the image ask for: an item, an image, or a text. */
function wantedOf(view: View, image: Images): Wanted | null {
  if (view.item !== undefined) return { item: view.item };
  if (view.query !== undefined) return { text: view.query };
  const [first] = image.images;
  return first === undefined ? null : { image: first };
}

/** The index of the address, or else the first one that holds embeddings of the deployment's model. */
function indexFor(deployment: string, wanted: string | undefined, all: Deployment[], indexes: Index[]): string {
  if (wanted !== undefined) return wanted;
  const target = all.find((each) => each.name === deployment);
  const model = target?.serving ?? target?.model;
  return (indexes.find((index) => index.model === model) ?? indexes[0]!).name;
}

/** All fields of the metadata that hits of this index have had: a filter that finds nothing keeps them. */
function useFields(index: string, hits: Hit[] | undefined) {
  const [seen, setSeen] = useState<{ index: string; hits: Hit[] }>({ index, hits: [] });
  if (seen.index !== index) setSeen({ index, hits: [] });
  else if (hits !== undefined && hits.length > 0 && hits !== seen.hits) setSeen({ index, hits });
  return useMemo(() => fieldsOf(seen.hits.slice(0, 100).map((hit) => hit.metadata)), [seen.hits]);
}
