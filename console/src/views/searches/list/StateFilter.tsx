import { Chip, Group } from "@mantine/core";
import { searchesRoute } from "../../../app/router";
import { STATES } from "../../jobs/jobState";

/** A search has the states of a job; it is never `starting`. */
const SHOWN = STATES.filter((state) => state !== "starting");

/** What the list shows, kept in the address. */
export function StateFilter() {
  const { state = [] } = searchesRoute.useSearch();
  const navigate = searchesRoute.useNavigate();
  return (
    <Chip.Group
      multiple
      value={state}
      onChange={(states) => void navigate({ search: (before) => ({ ...before, state: states }) })}
    >
      <Group gap={6} role="group" aria-label="States">
        {SHOWN.map((each) => (
          <Chip key={each} value={each} size="xs" variant="outline">
            {each}
          </Chip>
        ))}
      </Group>
    </Chip.Group>
  );
}
