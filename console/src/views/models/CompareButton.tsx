import { Button, type ButtonProps } from "@mantine/core";
import { IconScale } from "@tabler/icons-react";
import { ButtonLink } from "../../ui/links";

/** Leads to the comparison of the selected versions, once there are enough. */
export function CompareButton({
  models,
  least = 1,
  label = "Compare",
  ...look
}: { models: string[]; least?: number; label?: string } & ButtonProps) {
  const icon = <IconScale size={16} aria-hidden />;
  if (models.length < least) {
    return (
      <Button {...look} leftSection={icon} disabled>
        {label}
      </Button>
    );
  }
  return (
    <ButtonLink to="/compare-models" search={{ models }} {...look} leftSection={icon}>
      {label}
    </ButtonLink>
  );
}
