/** Which versions are compared, in which order: adding, removing, and the teacher of the first one. */
import { Checkbox, Group, Pill, Select, Text } from "@mantine/core";
import { useMemo } from "react";
import type { Schemas } from "../../api/client";
import { visible } from "../../app/labels";
import { compareModelsRoute } from "../../app/router";
import { newestOfEach } from "./choose";
import { useModels } from "./queries";
import { TEACHER } from "./references";

const MOST_OFFERED = 2000;
const MOST_COMPARED = 8;

export function ComparedModels({ models, compared }: { models: string[]; compared: Schemas["ComparedModel"][] | undefined }) {
  const navigate = compareModelsRoute.useNavigate();
  const set = (next: string[]) =>
    void navigate({
      search: (before) => ({ ...before, models: next.length > 0 ? next : undefined }),
      replace: true,
      resetScroll: false,
    });
  const versions = models.filter((model) => model !== TEACHER);
  const teacher = compared?.[0]?.teacher;
  return (
    <Group align="flex-end">
      <AddModel taken={versions} disabled={versions.length >= MOST_COMPARED} onAdd={(reference) => set([...models, reference])} />
      <Group gap="xs" role="list" aria-label="Compared versions" mb={4}>
        {versions.map((reference) => (
          <Pill
            key={reference}
            size="lg"
            role="listitem"
            withRemoveButton
            onRemove={() => set(withoutVersion(models, reference))}
            removeButtonProps={{ "aria-label": `Remove ${visible(reference)}`, "aria-hidden": false, tabIndex: 0 }}
          >
            {visible(reference)}
          </Pill>
        ))}
      </Group>
      {teacher != null && (
        <Checkbox
          label={
            <Text span size="sm" className="user-text">
              with the teacher {visible(teacher)}
            </Text>
          }
          checked={models.includes(TEACHER)}
          onChange={(event) => set(event.currentTarget.checked ? [versions[0]!, TEACHER, ...versions.slice(1)] : versions)}
          mb={9}
        />
      )}
    </Group>
  );
}

/** The teacher is that of the first version, and goes with it. */
function withoutVersion(models: string[], reference: string): string[] {
  const isFirst = models.filter((model) => model !== TEACHER)[0] === reference;
  return models.filter((model) => model !== reference && !(isFirst && model === TEACHER));
}

function AddModel({ taken, disabled, onAdd }: { taken: string[]; disabled: boolean; onAdd: (reference: string) => void }) {
  const models = useModels();
  const offered = useMemo(
    () => newestOfEach(models.data ?? [], MOST_OFFERED).filter((reference) => !taken.includes(reference)),
    [models.data, taken],
  );
  return (
    <Select
      label="Add a version"
      placeholder={disabled ? `${MOST_COMPARED} at most` : "name@version"}
      data={offered}
      value={null}
      onChange={(reference) => reference !== null && onAdd(reference)}
      searchable
      limit={100}
      disabled={disabled}
      nothingFoundMessage="No such version"
      w={240}
    />
  );
}
