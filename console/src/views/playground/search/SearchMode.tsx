import { SimpleGrid, Stack, Text } from "@mantine/core";
import { useMemo, useState } from "react";
import { TextLink } from "../../../ui/links";
import { Answer, Empty } from "../../../ui/states";
import { type Deployment, type Hit, type Index, useIndexes } from "../queries";
import type { Images } from "../useImages";
import { useView, type View } from "../view";
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
      An index is a set of images that a deployed model searches. Build one with <code>tinyclip-client indexes create</code>; it
      then appears here and under <TextLink to="/service">Service</TextLink>.
    </Empty>
  );
}

function Search({ deployments, all, image, onClassify, indexes }: Props & { indexes: Index[] }) {
  const [view, set] = useView();
  const wanted = wantedOf(view, image);
  const firstIndex = view.index ?? indexFor(deployments[0]!, undefined, all, indexes);
  const names = deployments.map((name, place) =>
    place === 0 ? firstIndex : (view.secondIndex ?? indexFor(name, firstIndex, all, indexes)),
  );
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
        <Empty title="What are you looking for?">
          Describe it in words, drop an image, or take a hit and ask for more like it.
        </Empty>
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
                set({ item, query: undefined, [place === 0 ? "index" : "secondIndex"]: names[place] }, { replace: false });
              }}
              onClassify={onClassify}
              size={deployments.length > 1 ? 112 : 150}
            />
          ))}
        </SimpleGrid>
      )}
      {wanted !== null && deployments.length > 1 && names[0] !== names[1] && (
        <Text size="xs">
          The two deployments search different indexes: scores of different models cannot be compared, ranks can.
        </Text>
      )}
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

/** The preferred index if it holds embeddings of the deployment's model; else the first one that does. */
function indexFor(deployment: string, preferred: string | undefined, all: Deployment[], indexes: Index[]): string {
  const target = all.find((each) => each.name === deployment);
  const model = target?.serving ?? target?.model;
  const fitting = indexes.filter((index) => index.model === model).map((index) => index.name);
  if (preferred !== undefined && (fitting.includes(preferred) || fitting.length === 0)) return preferred;
  return fitting[0] ?? indexes[0]!.name;
}

/** All fields of the metadata that hits of this index have had: a filter that finds nothing keeps them. */
function useFields(index: string, hits: Hit[] | undefined) {
  const [seen, setSeen] = useState<{ index: string; hits: Hit[] }>({ index, hits: [] });
  if (seen.index !== index) setSeen({ index, hits: [] });
  else if (hits !== undefined && hits.length > 0 && hits !== seen.hits) setSeen({ index, hits });
  return useMemo(() => fieldsOf(seen.hits.slice(0, 100).map((hit) => hit.metadata)), [seen.hits]);
}
