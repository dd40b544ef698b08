/** Images of a task by who is right: thumbnails with the true class and each model's answer. */
import { Button, Center, Group, Pill, SegmentedControl, SimpleGrid, Stack, Text, useMatches } from "@mantine/core";
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import type { Schemas } from "../../api/client";
import { integer } from "../../app/format";
import { visible } from "../../app/labels";
import { compareModelsRoute } from "../../app/router";
import { Answer, Empty } from "../../ui/states";
import { ImageCard } from "./ImageCard";
import { predictionsQuery } from "./queries";

const PAGE = 48;
const SHOWS = ["differ", "only_first", "only_second", "both_wrong", "all"] as const;
type Show = (typeof SHOWS)[number];

interface Props {
  models: string[];
  names: string[];
  task: string;
  /** Whose copy of the task has the images. */
  version: string;
}

export function PredictedImages({ models, names, task, version }: Props) {
  const search = compareModelsRoute.useSearch();
  const show = SHOWS.find((each) => each === search.show) ?? "differ";
  const pages = useInfiniteQuery({
    queryKey: ["compare", "images", models, task, show, search.label],
    initialPageParam: undefined as string | undefined,
    placeholderData: keepPreviousData,
    staleTime: 60_000,
    queryFn: ({ pageParam }) =>
      predictionsQuery({ models: models.join(","), task, show, label: search.label, page_size: PAGE, page_token: pageParam }),
    getNextPageParam: (page) => page.next_page_token ?? undefined,
  });
  return (
    <Stack>
      <Answer of={pages}>
        {({ pages: found }) => (
          <>
            <Filters counts={found[0]!.counts} show={show} names={names} label={search.label} />
            <Kept answer={found[0]!} />
            <Grid images={found.flatMap((page) => page.items)} names={names} task={task} version={version} />
            {pages.hasNextPage && (
              <Center>
                <Button variant="default" loading={pages.isFetchingNextPage} onClick={() => void pages.fetchNextPage()}>
                  Show more images
                </Button>
              </Center>
            )}
          </>
        )}
      </Answer>
    </Stack>
  );
}

function Filters({
  counts,
  show,
  names,
  label,
}: {
  counts: Schemas["PredictionCounts"];
  show: Show;
  names: string[];
  label: string | undefined;
}) {
  const navigate = compareModelsRoute.useNavigate();
  const set = (values: { show?: Show; label?: string | undefined }) =>
    void navigate({ search: (before) => ({ ...before, ...values }), replace: true, resetScroll: false });
  const orientation = useMatches<"vertical" | "horizontal">({ base: "vertical", lg: "horizontal" });
  const [first, second] = names.map((name) => visible(name, 40));
  const data = [
    { value: "differ", label: `Answers differ (${integer(counts.differ)})` },
    { value: "only_first", label: `Only ${first} right (${integer(counts.only_first)})` },
    { value: "only_second", label: `Only ${second} right (${integer(counts.only_second)})` },
    { value: "both_wrong", label: `Both wrong (${integer(counts.both_wrong)})` },
    { value: "all", label: `All (${integer(counts.images)})` },
  ];
  return (
    <Group>
      <SegmentedControl
        aria-label="Which images"
        data={data}
        value={show}
        onChange={(value) => set({ show: value as Show })}
        orientation={orientation}
      />
      {label !== undefined && (
        <Pill
          size="lg"
          withRemoveButton
          onRemove={() => set({ label: undefined })}
          removeButtonProps={{ "aria-label": "Show all classes", "aria-hidden": false, tabIndex: 0 }}
        >
          class: {visible(label, 80)}
        </Pill>
      )}
    </Group>
  );
}

function Kept({ answer }: { answer: Schemas["PredictionComparison"] }) {
  if (answer.kept >= answer.images) return null;
  return (
    <Text size="xs" c="dimmed">
      Predictions are kept for the first {integer(answer.kept)} of {integer(answer.images)} images.
    </Text>
  );
}

function Grid({ images, names, task, version }: { images: Schemas["PredictedImage"][] } & Omit<Props, "models">) {
  if (images.length === 0) return <Empty title="No images of this kind">Choose another kind above, or show all classes.</Empty>;
  return (
    <SimpleGrid cols={{ base: 2, sm: 3, md: 4, lg: 6 }} spacing="sm" role="list" aria-label="Images">
      {images.map((image) => (
        <ImageCard key={image.number} image={image} names={names} task={task} version={version} />
      ))}
    </SimpleGrid>
  );
}
