import { ActionIcon, Badge, Button, CloseButton, Group, Popover, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconTagPlus } from "@tabler/icons-react";
import { useState } from "react";
import { api, ask } from "../../../api/client";
import { visible } from "../../../app/labels";
import { done, failed } from "../../../ui/notify";
import { useChange, type DatasetVersion } from "../queries";

/** The aliases of a version, each with a button that removes it, and a form for a new one. */
export function Aliases({ version: { name, version, aliases, actions } }: { version: DatasetVersion }) {
  const mayChange = actions.includes("alias");
  const removal = useChange(
    (alias: string) => ask(api.DELETE("/v1/datasets/{name}/aliases/{alias}", { params: { path: { name, alias } } })),
    (_, alias) => done(`${alias} is removed`),
  );
  return (
    <Group gap={6}>
      {aliases.map((alias) => (
        <Badge
          key={alias}
          variant="default"
          radius="sm"
          tt="none"
          rightSection={
            mayChange && (
              <CloseButton
                size={16}
                iconSize={12}
                aria-label={`Remove the alias ${alias}`}
                onClick={() => removal.mutate(alias, { onError: (error) => failed(`Removing ${alias}`, error) })}
              />
            )
          }
        >
          {visible(alias)}
        </Badge>
      ))}
      {mayChange && <NewAlias name={name} version={version} />}
    </Group>
  );
}

function NewAlias({ name, version }: { name: string; version: number }) {
  const [opened, { toggle, close }] = useDisclosure();
  const [alias, setAlias] = useState("");
  const setting = useChange(
    (given: string) =>
      ask(api.PUT("/v1/datasets/{name}/aliases/{alias}", { params: { path: { name, alias: given } }, body: { version } })),
    (_, given) => {
      done(`${given} is ${name}@${version}`);
      setAlias("");
      close();
    },
  );
  const label = `Set an alias for ${name}@${version}`;
  return (
    <Popover opened={opened} onChange={(isOpen) => !isOpen && close()} trapFocus returnFocus withArrow>
      <Popover.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={label} title="Set an alias" onClick={toggle}>
          <IconTagPlus size={16} />
        </ActionIcon>
      </Popover.Target>
      <Popover.Dropdown aria-label={label}>
        <form
          onSubmit={(event) => {
            event.preventDefault();
            setting.mutate(alias.trim());
          }}
        >
          <Group gap="xs" align="flex-end">
            <TextInput
              label="Alias"
              placeholder="best"
              value={alias}
              onChange={(event) => setAlias(event.currentTarget.value)}
              error={setting.error?.message}
              data-autofocus
            />
            <Button type="submit" loading={setting.isPending} disabled={alias.trim() === ""}>
              Set
            </Button>
          </Group>
        </form>
      </Popover.Dropdown>
    </Popover>
  );
}
