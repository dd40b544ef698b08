/** Submission of a spec, once: a second attempt at the same spec after a lost answer is answered with the same job. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useRef } from "react";
import { randomKey, send, type Schemas } from "../../api/client";
import { done, failed } from "../../ui/notify";
import { writeDraft } from "./draft";

export function useSubmit(source: string) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const sent = useRef({ spec: "", key: "" });
  return useMutation({
    mutationFn: async (spec: string) => {
      if (sent.current.spec !== spec) sent.current = { spec, key: randomKey() };
      const headers = { "Content-Type": "application/json", "Idempotency-Key": sent.current.key };
      return (await (await send("/v1/jobs", { method: "POST", body: spec, headers })).json()) as Schemas["Job"];
    },
    onSuccess: (job) => {
      writeDraft(source, null);
      sent.current = { spec: "", key: "" };
      done(`Job ${job.name} is submitted`);
      void client.invalidateQueries({ queryKey: ["jobs"] });
      void navigate({ to: "/jobs/$jobId", params: { jobId: job.id } });
    },
    onError: (error) => failed("Submission", error),
  });
}
