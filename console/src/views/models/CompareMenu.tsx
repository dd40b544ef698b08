import { Button, Menu } from "@mantine/core";
import { IconScale } from "@tabler/icons-react";
import { useNavigate } from "@tanstack/react-router";
import type { Schemas } from "../../api/client";
import { referenceOf, TEACHER } from "./references";

/** What a version can be compared with: its teacher, the version before it, or any other. */
export function CompareMenu({ model, version }: { model: Schemas["Model"]; version: Schemas["ModelVersion"] }) {
  const navigate = useNavigate();
  const reference = referenceOf(version);
  const before = model.versions.filter((number) => number < version.version).at(-1);
  const open = (...models: string[]) => void navigate({ to: "/compare-models", search: { models } });
  return (
    <Menu>
      <Menu.Target>
        <Button variant="default" leftSection={<IconScale size={16} aria-hidden />}>
          Compare with…
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {version.teacher != null && <Menu.Item onClick={() => open(reference, TEACHER)}>Its teacher</Menu.Item>}
        {before !== undefined && (
          <Menu.Item onClick={() => open(reference, `${model.name}@${before}`)}>Version {before}</Menu.Item>
        )}
        <Menu.Item onClick={() => open(reference)}>Another model…</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
