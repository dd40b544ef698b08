/** The aliases of a model: which version each names, with setting and removing them. */
import { ActionIcon, Button, Group, Stack, Table, Text, TextInput, Tooltip } from "@mantine/core";
import { IconTrash } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { api, ask, type Schemas } from "../../api/client";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { done, failed } from "../../ui/notify";

const NAME = /^[a-z][a-z0-9._-]{0,62}$/;

export function Aliases({ model, version }: { model: Schemas["Model"]; version: Schemas["ModelVersion"] }) {
  const mayChange = version.actions.includes("alias");
  const aliases = Object.entries(model.aliases);
  return (
    <Stack gap="xs">
      {aliases.length === 0 && (
        <Text size="sm">None yet. An alias such as “best” names a version in specs, deployments and downloads.</Text>
      )}
      {aliases.length > 0 && (
        <Table>
          <Table.Tbody>
            {aliases.map(([alias, at]) => (
              <Table.Tr key={alias}>
                <Table.Th scope="row" className="user-text">
                  {visible(model.name)}@{visible(alias)}
                </Table.Th>
                <Table.Td>
                  <TextLink inherit to="/models/$name" params={{ name: model.name }} search={{ version: String(at) }}>
                    version {at}
                  </TextLink>
                </Table.Td>
                <Table.Td ta="right">{mayChange && <RemoveAlias name={model.name} alias={alias} />}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      )}
      {mayChange && <SetAlias name={model.name} version={version.version} aliases={model.aliases} />}
    </Stack>
  );
}

function useRefresh() {
  const client = useQueryClient();
  return () => void client.invalidateQueries({ queryKey: ["models"] });
}

function RemoveAlias({ name, alias }: { name: string; alias: string }) {
  const refresh = useRefresh();
  const remove = useMutation({
    mutationFn: () => ask(api.DELETE("/v1/models/{name}/aliases/{alias}", { params: { path: { name, alias } } })),
    onSuccess: () => (done(`Removed the alias ${alias}`), refresh()),
    onError: (error) => failed("Removing the alias", error),
  });
  return (
    <Tooltip label="Remove the alias">
      <ActionIcon
        variant="subtle"
        color="red"
        aria-label={`Remove alias ${alias}`}
        loading={remove.isPending}
        onClick={() => remove.mutate()}
      >
        <IconTrash size={16} />
      </ActionIcon>
    </Tooltip>
  );
}

function problemOf(alias: string): string | null {
  if (alias === "latest") return "latest is always the newest version";
  return alias === "" || NAME.test(alias) ? null : "Lower-case letters, digits, . _ - and first a letter";
}

function SetAlias({ name, version, aliases }: { name: string; version: number; aliases: Record<string, number> }) {
  const refresh = useRefresh();
  const [alias, setAlias] = useState("");
  const problem = problemOf(alias);
  const before = aliases[alias];
  const set = useMutation({
    mutationFn: () => ask(api.PUT("/v1/models/{name}/aliases/{alias}", { params: { path: { name, alias } }, body: { version } })),
    onSuccess: () => (done(`${alias} is now version ${version}`), setAlias(""), refresh()),
    onError: (error) => failed("Setting the alias", error),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (alias !== "" && problem === null) set.mutate();
  };
  return (
    <form onSubmit={submit}>
      <Group align="flex-end" gap="xs">
        <TextInput
          label={`Alias for version ${version}`}
          placeholder="best"
          value={alias}
          onChange={(event) => setAlias(event.currentTarget.value.trim())}
          error={problem}
          {...(before !== undefined && before !== version ? { description: `It names version ${before} now` } : {})}
        />
        <Button
          type="submit"
          variant="default"
          loading={set.isPending}
          disabled={alias === "" || problem !== null || before === version}
        >
          Set alias
        </Button>
      </Group>
    </form>
  );
}
