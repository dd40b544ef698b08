/** Deploy a version: a name, an engine, and the way to the playground once it is ready. */
import { Alert, Button, Group, Loader, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { IconRocket } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { api, ask, type Schemas } from "../../api/client";
import { visible } from "../../app/labels";
import { LIVE_MS } from "../../app/queries";
import { modelRoute } from "../../app/router";
import { ButtonLink, TextLink } from "../../ui/links";
import { ErrorState, StateBadge } from "../../ui/states";
import { useDeployments } from "./queries";
import { referenceOf } from "./references";

type Version = Schemas["ModelVersion"];
type Engine = Schemas["DeploymentPut"]["engine"];

const ENGINES: { value: Engine; label: string }[] = [
  { value: "auto", label: "Choose the fastest that agrees with torch" },
  { value: "torch", label: "torch, fp32" },
  { value: "torch-bf16", label: "torch, bf16" },
  { value: "openvino", label: "OpenVINO, fp32" },
  { value: "openvino-bf16", label: "OpenVINO, bf16" },
  { value: "openvino-int8", label: "OpenVINO, int8" },
];
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

export function DeployButton({ version }: { version: Version }) {
  const { deploy } = modelRoute.useSearch(); // so that other views can lead to the dialog
  const navigate = modelRoute.useNavigate();
  const set = (deploy?: "1") => void navigate({ search: (before) => ({ ...before, deploy }), replace: true, resetScroll: false });
  if (!version.actions.includes("deploy")) return null;
  return (
    <>
      <Button leftSection={<IconRocket size={16} aria-hidden />} onClick={() => set("1")}>
        Deploy
      </Button>
      <Modal opened={deploy !== undefined} onClose={() => set()} title={`Deploy ${referenceOf(version)}`}>
        <Deploy version={version} />
      </Modal>
    </>
  );
}

function Deploy({ version }: { version: Version }) {
  const client = useQueryClient();
  const [sent, setSent] = useState<string | null>(null);
  const put = useMutation({
    mutationFn: ({ name, engine }: { name: string; engine: Engine }) =>
      ask(
        api.PUT("/v1/deployments/{name}", {
          params: { path: { name } },
          body: {
            model: referenceOf(version),
            engine,
            models: [],
            resident: 4,
            replicas: { min: 1, max: 1, target_requests: 16 },
          },
        }),
      ),
    onSuccess: (deployment) => {
      setSent(deployment.name);
      void client.invalidateQueries({ queryKey: ["deployments"] });
    },
  });
  if (sent !== null) return <Progress name={sent} reference={referenceOf(version)} />;
  return (
    <Stack>
      {put.isError && <ErrorState error={put.error} />}
      <Form version={version} isSending={put.isPending} onSubmit={(name, engine) => put.mutate({ name, engine })} />
    </Stack>
  );
}

function Form({
  version,
  isSending,
  onSubmit,
}: {
  version: Version;
  isSending: boolean;
  onSubmit(name: string, engine: Engine): void;
}) {
  const [name, setName] = useState(version.name);
  const [engine, setEngine] = useState<Engine>("auto");
  const existing = useDeployments();
  const same = existing.data?.find((deployment) => deployment.name === name);
  const isValid = NAME.test(name) && (same === undefined || same.actions.includes("update"));
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (isValid) onSubmit(name, engine);
  };
  return (
    <form onSubmit={submit}>
      <Stack>
        <TextInput
          label="Name of the deployment"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          error={NAME.test(name) || name === "" ? null : "Lower-case letters, digits, . _ -"}
          required
          data-autofocus
        />
        <Select
          label="Engine"
          data={ENGINES}
          value={engine}
          onChange={(value) => value !== null && setEngine(value as Engine)}
          allowDeselect={false}
        />
        {same !== undefined && (
          <Alert color="orange" title="This deployment exists">
            <Text size="sm" className="user-text">
              {visible(same.name)} serves {visible(same.model)} now.{" "}
              {same.actions.includes("update")
                ? `It will change to ${referenceOf(version)} and the settings above, with one replica; queries go on meanwhile.`
                : "It cannot be changed at the moment: choose another name."}
            </Text>
          </Alert>
        )}
        <Group justify="flex-end">
          <Button type="submit" loading={isSending} disabled={!isValid}>
            {same === undefined ? "Deploy" : "Change the deployment"}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

/** What becomes of the deployment; it goes on when the dialog is closed. */
function Progress({ name, reference }: { name: string; reference: string }) {
  const deployment = useQuery({
    queryKey: ["deployments", name],
    queryFn: () => ask(api.GET("/v1/deployments/{name}", { params: { path: { name } } })),
    refetchInterval: LIVE_MS,
  });
  const state = deployment.data?.state;
  const isReady = state === "ready" && deployment.data?.model === reference;
  return (
    <Stack>
      <Group gap="xs" role="status">
        {!isReady && state !== "unhealthy" && <Loader size="xs" />}
        <Text size="sm" className="user-text">
          {visible(name)}{" "}
          {isReady
            ? "answers queries."
            : state === "unhealthy"
              ? "could not be deployed."
              : "starts; this takes a minute or less."}
        </Text>
        {state !== undefined && <StateBadge state={state} />}
      </Group>
      {deployment.isError && <ErrorState error={deployment.error} />}
      {deployment.data?.message && (
        <Text size="sm" className="user-text">
          {visible(deployment.data.message)}
        </Text>
      )}
      <Group justify="space-between">
        <TextLink inherit to="/service/deployments/$name" params={{ name }}>
          Show the deployment
        </TextLink>
        {isReady && (
          <ButtonLink to="/playground" search={{ deployment: name }}>
            Open in the playground
          </ButtonLink>
        )}
      </Group>
    </Stack>
  );
}
