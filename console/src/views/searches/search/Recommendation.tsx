import { Group, List, Stack, Text } from "@mantine/core";
import { compact } from "../../../app/format";
import { visible } from "../../../app/labels";
import { holds } from "../../../app/scopes";
import { useMe } from "../../../app/Shell";
import { ButtonLink } from "../../../ui/links";
import { hasEnded } from "../../jobs/jobState";
import { ModelLink } from "../ModelLink";
import type { Candidate, Search } from "../requests";

/** The recommended student with the reason, or why there is none. */
export function Recommendation({ search }: { search: Search }) {
  const { recommended, reason } = search;
  if (recommended == null && reason === "") {
    return (
      <Text size="sm" c="dimmed">
        {hasEnded(search) ? "The search has ended without a result." : "The search is not finished."}
      </Text>
    );
  }
  return (
    <Stack gap="xs">
      {recommended != null && <Recommended candidate={recommended} />}
      <Text size="sm" className="user-text">
        {visible(reason, 2000)}
      </Text>
    </Stack>
  );
}

function Recommended({ candidate }: { candidate: Candidate }) {
  const { model, trial, params, macs, violations } = candidate;
  const mayWrite = holds(useMe().data, "write");
  const search = { version: String(model.version), deploy: "1" as const };
  return (
    <>
      <Group gap="xs" justify="space-between">
        <Group gap="xs">
          <ModelLink model={model} />
          <Text size="sm">
            trial {trial}, {compact(params)} parameters, {compact(macs)} MACs
          </Text>
        </Group>
        {mayWrite && (
          <ButtonLink size="xs" variant="default" to="/models/$name" params={{ name: model.name }} search={search}>
            Deploy
          </ButtonLink>
        )}
      </Group>
      {violations.length > 0 && (
        <List size="sm" aria-label="Constraints that it does not meet">
          {violations.map((violation) => (
            <List.Item key={violation} className="user-text">
              {visible(violation, 300)}
            </List.Item>
          ))}
        </List>
      )}
    </>
  );
}
