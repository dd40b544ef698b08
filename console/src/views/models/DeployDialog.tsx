/** Deploy a version: a name, an engine, and the way to the playground once it is ready. */
import { Alert, Button, Group, Loader, Modal, Select, Stack, Text, TextInput } from "@mantine/core";
import { IconRocket } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../api/client";
import { ApiError } from "../../api/problems";
import { visible } from "../../app/labels";
import { isName } from "../../app/names";
import { LIVE_MS } from "../../app/queries";
import { modelRoute } from "../../app/router";
import { ButtonLink, TextLink } from "../../ui/links";
import { RequestForm, useFields } from "../../ui/RequestForm";
import { ErrorState, StateBadge } from "../../ui/states";
import { newDeployment, withModel } from "../service/deployments/form";
import { useDeployments } from "./queries";
import { referenceOf } from "./references";

type Version = Schemas["ModelVersion"];
type Deployment = Schemas["Deployment"];
type Engine = Schemas["DeploymentPut"]["engine"];

const ENGINES: { value: Engine; label: string }[] = [
  { value: "auto", label: "Choose the fastest that agrees with torch" },
  { value: "torch", label: "torch, fp32" },
  { value: "torch-bf16", label: "torch, bf16" },
  { value: "openvino", label: "OpenVINO, fp32" },
  { value: "openvino-bf16", label: "OpenVINO, bf16" },
  { value: "openvino-int8", label: "OpenVINO, int8" },
];

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
        <Deploy version={version} onClose={() => set()} />
      </Modal>
    </>
  );
}

function Deploy({ version, onClose }: { version: Version; onClose: () => void }) {
  const [sent, setSent] = useState<string | null>(null);
  const [{ name, engine }, set] = useFields({ name: version.name, engine: "auto" as Engine });
  const existing = useDeployments().data?.find((deployment) => deployment.name === name);
  const model = referenceOf(version);
  if (sent !== null) return <Progress name={sent} reference={model} />;
  return (
    <RequestForm
      action={existing === undefined ? "Deploy" : "Change the deployment"}
      isBlocked={!isName(name) || existing?.actions?.includes("update") === false}
      send={() => deploy(name, model, engine)}
      queryKey={["deployments"]}
      onSent={(deployment) => setSent(deployment.name)}
      onCancel={onClose}
    >
      <TextInput
        label="Name of the deployment"
        value={name}
        onChange={(event) => set({ name: event.currentTarget.value })}
        error={isName(name) || name === "" ? null : "Lower-case letters, digits, . _ -"}
        required
        data-autofocus
      />
      {existing === undefined ? (
        <Select
          label="Engine"
          data={ENGINES}
          value={engine}
          onChange={(value) => value !== null && set({ engine: value })}
          allowDeselect={false}
        />
      ) : (
        <Existing deployment={existing} model={model} />
      )}
    </RequestForm>
  );
}

/** Create the deployment, or change the model of the one that has this name now. */
async function deploy(name: string, model: string, engine: Engine): Promise<Deployment> {
  const params = { path: { name } };
  const existing = await ask(api.GET("/v1/deployments/{name}", { params })).catch((error: unknown) => {
    if (error instanceof ApiError && error.problem.status === 404) return undefined;
    throw error;
  });
  const body = existing === undefined ? newDeployment(model, engine) : withModel(existing, model);
  return ask(api.PUT("/v1/deployments/{name}", { params, body }));
}

function Existing({ deployment, model }: { deployment: Deployment; model: string }) {
  const loses = deployment.canary != null && withModel(deployment, model).canary == null;
  return (
    <Alert color="orange" title="This deployment exists">
      <Text size="sm" className="user-text">
        {visible(deployment.name)} serves {visible(deployment.model)} now.{" "}
        {deployment.actions?.includes("update")
          ? `It will change to ${model}, and keep its engine, replicas and other settings; queries go on meanwhile.`
          : "It cannot be changed at the moment: choose another name."}
        {loses && ` Its canary ${visible(deployment.canary?.model ?? "")} ends.`}
      </Text>
    </Alert>
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
