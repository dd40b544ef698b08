import { Alert, Button, Group, Modal, NumberInput, Stack, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { api, ask } from "../../../api/client";
import { ApiError } from "../../../api/problems";
import { visible } from "../../../app/labels";
import { done } from "../../../ui/notify";
import { Answer, ErrorState } from "../../../ui/states";
import type { Job } from "../jobState";
import { readLabels, writeLabels } from "./labelLines";
import { jobKey } from "./useJob";

/** Change a job's name, labels and priority. */
export function EditJob({ jobId, opened, onClose }: { jobId: string; opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Edit job">
      <Editor jobId={jobId} onClose={onClose} />
    </Modal>
  );
}

/** The job as it is when the dialog opens, with its ETag: what is saved never undoes what somebody else has changed since. */
function Editor({ jobId, onClose }: { jobId: string; onClose: () => void }) {
  const read = useQuery({
    queryKey: ["job", jobId, "edited"],
    queryFn: async ({ signal }) => {
      const call = api.GET("/v1/jobs/{job_id}", { params: { path: { job_id: jobId } }, signal });
      return { job: await ask(call), etag: (await call).response.headers.get("etag") };
    },
    staleTime: Infinity,
    gcTime: 0,
  });
  return (
    <Answer of={read}>
      {({ job, etag }) => <Form key={etag} job={job} etag={etag} onReload={() => void read.refetch()} onClose={onClose} />}
    </Answer>
  );
}

interface FormProps {
  job: Job;
  etag: string | null;
  onReload: () => void;
  onClose: () => void;
}

function Form({ job, etag, onReload, onClose }: FormProps) {
  const [name, setName] = useState(job.name);
  const [labels, setLabels] = useState(writeLabels(job.labels));
  const [priority, setPriority] = useState<number | string>(job.priority);
  const read = readLabels(labels);
  const isValid = name.trim() !== "" && read.mistake === null && typeof priority === "number";
  const save = useSave(job, etag, onClose);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isValid) save.mutate({ name: name.trim(), labels: read.labels, priority });
  };
  return (
    <form onSubmit={submit}>
      <Stack>
        {save.isError && <Failure error={save.error} onReload={onReload} />}
        <TextInput label="Name" value={name} onChange={(event) => setName(event.currentTarget.value)} required data-autofocus />
        <Textarea
          label="Labels"
          description="One in a line, as team: vision"
          autosize
          minRows={2}
          maxRows={10}
          value={labels}
          onChange={(event) => setLabels(event.currentTarget.value)}
          error={read.mistake}
        />
        <NumberInput
          label="Priority"
          description="Jobs of a higher priority run first"
          min={-1000}
          max={1000}
          allowDecimal={false}
          value={priority}
          onChange={setPriority}
        />
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={save.isPending} disabled={!isValid}>
            Save
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

interface Changes {
  name: string;
  labels: Record<string, string>;
  priority: number;
}

function useSave(job: Job, etag: string | null, onSaved: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Changes) => {
      const header = etag === null ? {} : { "if-match": etag };
      return ask(api.PATCH("/v1/jobs/{job_id}", { params: { path: { job_id: job.id }, header }, body }));
    },
    onSuccess: (changed) => {
      client.setQueryData(jobKey(job.id), changed);
      done(`Saved ${visible(changed.name, 100)}`);
      onSaved();
    },
  });
}

function Failure({ error, onReload }: { error: unknown; onReload: () => void }) {
  if (!(error instanceof ApiError) || error.problem.status !== 412) return <ErrorState error={error} />;
  return (
    <Alert color="orange" title="Somebody else has changed this job" role="alert">
      <Stack gap="xs" align="flex-start">
        Nothing was saved. Read the job again to see the present values; what you have entered here is then lost.
        <Button size="xs" variant="default" onClick={onReload}>
          Read again
        </Button>
      </Stack>
    </Alert>
  );
}
