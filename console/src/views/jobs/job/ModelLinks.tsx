import { IconRocket } from "@tabler/icons-react";
import { visible } from "../../../app/labels";
import { holds } from "../../../app/scopes";
import { useMe } from "../../../app/Shell";
import { ButtonLink } from "../../../ui/links";
import type { Job } from "../jobState";

/** The ways on from a job that has made a model. */
export function ModelLinks({ job: { model } }: { job: Job }) {
  const mayWrite = holds(useMe().data, "write");
  if (model === null) return null;
  const version = String(model.version);
  return (
    <>
      <ButtonLink size="xs" to="/models/$name" params={{ name: model.name }} search={{ version }}>
        Open {visible(model.name, 60)}@{version}
      </ButtonLink>
      {mayWrite && (
        <ButtonLink
          size="xs"
          variant="default"
          leftSection={<IconRocket size={14} aria-hidden />}
          to="/models/$name"
          params={{ name: model.name }}
          search={{ version, deploy: "1" }}
        >
          Deploy
        </ButtonLink>
      )}
    </>
  );
}
