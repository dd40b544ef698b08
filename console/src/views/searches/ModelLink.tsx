import type { Schemas } from "../../api/client";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";

/** A version by its name; nothing for none. */
export function ModelLink({ model }: { model: Schemas["ModelRef"] | null | undefined }) {
  if (model == null) return null;
  return (
    <TextLink
      to="/models/$name"
      params={{ name: model.name }}
      search={{ version: String(model.version) }}
      size="sm"
      className="user-text"
    >
      {visible(model.name, 100)}@{model.version}
    </TextLink>
  );
}
