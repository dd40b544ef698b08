import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { api, ask } from "../../../api/client";
import { visible } from "../../../app/labels";
import { ButtonLink } from "../../../ui/links";
import { done, failed } from "../../../ui/notify";
import { Confirm } from "../../../ui/Confirm";
import type { Job } from "../jobState";
import { change, CHANGES, type Change } from "../requests";
import { EditJob } from "./EditJob";
import { jobKey } from "./useJob";

const CONFIRMED = {
  cancel: {
    title: "Cancel this job?",
    action: "Cancel the job",
    text: "Training stops at its next step. The checkpoints are kept: a retry continues from the last one.",
  },
  delete: {
    title: "Delete this job?",
    action: "Delete the job",
    text: "Its history, metrics and checkpoints are removed. Its model versions stay.",
  },
};

/** The buttons for what the job allows now. */
export function JobActions({ job }: { job: Job }) {
  const { act, isRunning } = useActions(job);
  const [confirming, setConfirming] = useState<keyof typeof CONFIRMED | null>(null);
  const [asked, setAsked] = useState<keyof typeof CONFIRMED>("cancel"); // its text stays while the dialog closes
  const [isEditing, setEditing] = useState(false);
  const ask = (action: keyof typeof CONFIRMED) => {
    setAsked(action);
    setConfirming(action);
  };
  const { title, action, text } = CONFIRMED[asked];
  return (
    <>
      {(["pause", "resume", "retry"] as const).map(
        (each) =>
          job.actions.includes(each) && (
            <Button key={each} size="xs" variant="default" loading={isRunning} onClick={() => void act(each)}>
              {CHANGES[each].label}
            </Button>
          ),
      )}
      {job.actions.includes("edit") && (
        <Button size="xs" variant="default" onClick={() => setEditing(true)}>
          Edit
        </Button>
      )}
      {job.actions.includes("clone") && (
        <ButtonLink size="xs" variant="default" to="/new-job" search={{ from: job.id }}>
          Edit as new job
        </ButtonLink>
      )}
      {job.actions.includes("cancel") && (
        <Button size="xs" color="red" variant="outline" loading={isRunning} onClick={() => ask("cancel")}>
          Cancel
        </Button>
      )}
      {job.actions.includes("delete") && (
        <Button size="xs" color="red" variant="outline" loading={isRunning} onClick={() => ask("delete")}>
          Delete
        </Button>
      )}
      <EditJob jobId={job.id} opened={isEditing} onClose={() => setEditing(false)} />
      <Confirm
        opened={confirming !== null}
        title={title}
        action={action}
        onClose={() => setConfirming(null)}
        onConfirm={() => {
          setConfirming(null);
          void act(asked);
        }}
      >
        {text}
      </Confirm>
    </>
  );
}

function useActions(job: Job) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [isRunning, setRunning] = useState(false);

  async function act(action: Change | "delete"): Promise<void> {
    setRunning(true);
    try {
      if (action === "delete") {
        await ask(api.DELETE("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } }));
        done(`Deleted ${visible(job.name, 100)}`);
        await navigate({ to: "/jobs" });
      } else {
        const changed = await change(action, job.id);
        client.setQueryData(jobKey(changed.id), changed);
        if (changed.id !== job.id) await navigate({ to: "/jobs/$jobId", params: { jobId: changed.id } });
      }
    } catch (error) {
      failed(action === "delete" ? "Delete" : CHANGES[action].label, error);
      void client.invalidateQueries({ queryKey: jobKey(job.id) });
    } finally {
      setRunning(false);
    }
  }
  return { act, isRunning };
}
