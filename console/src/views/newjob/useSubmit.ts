/** Submission of a job's spec. */
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import type { Schemas } from "../../api/client";
import { done } from "../../ui/notify";
import { usePost } from "./usePost";

export function useSubmit(source: string) {
  const navigate = useNavigate();
  const client = useQueryClient();
  return usePost<Schemas["Job"]>("/v1/jobs", source, (job) => {
    done(`Job ${job.name} is submitted`);
    void client.invalidateQueries({ queryKey: ["jobs"] });
    void navigate({ to: "/jobs/$jobId", params: { jobId: job.id } });
  });
}
