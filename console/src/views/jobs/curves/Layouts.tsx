import { Box, Paper, SimpleGrid, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { send } from "../../../api/client";
import { ApiError } from "../../../api/problems";
import { SLOW_MS } from "../../../app/queries";
import { visible } from "../../../app/labels";
import { useObjectUrl } from "../../../ui/AuthorisedImage";
import type { Job } from "../jobState";

/** Pictures of what automatic stages have kept of each block. */
export function Layouts({ job, hasEnded }: { job: Job; hasEnded: boolean }) {
  // The size is a measured one from the prune step on, and so is the picture.
  const stages = job.stages.filter((stage) => stage.inherit === "auto" && stage.student?.estimated === false);
  return (
    <SimpleGrid cols={{ base: 1, lg: Math.min(2, Math.max(1, stages.length)) }}>
      {stages.map((stage) => (
        <LayoutPicture key={stage.index} jobId={job.id} stage={stage} hasEnded={hasEnded} />
      ))}
    </SimpleGrid>
  );
}

/** An older job may have none. */
function LayoutPicture({ jobId, stage, hasEnded }: { jobId: string; stage: Job["stages"][number]; hasEnded: boolean }) {
  const picture = useQuery({
    queryKey: ["job", jobId, "layout", stage.index],
    queryFn: ({ signal }) => readPicture(`/v1/jobs/${encodeURIComponent(jobId)}/stages/${stage.index}/layout.svg`, signal),
    refetchInterval: (query) => (query.state.data == null && !hasEnded ? SLOW_MS : false),
    staleTime: 60_000,
  });
  const url = useObjectUrl(picture.data ?? undefined);
  if (url === null) return null;
  const title = `Kept by stage ${visible(stage.name, 60)}`;
  return (
    <Paper withBorder p="sm">
      <Title order={2} size="h5" mb={6} className="user-text">
        {title}
      </Title>
      <Box bg="white" p="xs" style={{ overflowX: "auto" }}>
        <img src={url} alt={`${title}: heads and MLP units of each block`} style={{ maxWidth: "100%", height: "auto" }} />
      </Box>
    </Paper>
  );
}

async function readPicture(url: string, signal: AbortSignal): Promise<Blob | null> {
  try {
    return await (await send(url, { signal })).blob();
  } catch (error) {
    if (error instanceof ApiError && error.problem.status === 404) return null;
    throw error;
  }
}
