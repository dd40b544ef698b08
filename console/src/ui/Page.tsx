import { Group, Stack, Text, Title, type MantineSpacing } from "@mantine/core";
import { useEffect, type ReactNode } from "react";

interface Props {
  title: string;
  subtitle?: ReactNode;
  actions?: ReactNode;
  /** Between the parts of the content. */
  gap?: MantineSpacing;
  children: ReactNode;
}

/** A view: its title, also that of the browser's tab, its actions on the right, and its content. */
export function Page({ title, subtitle, actions, gap = "md", children }: Props) {
  useEffect(() => {
    document.title = `${title} – TinyCLIP`;
  }, [title]);
  return (
    <Stack gap={gap}>
      <Group justify="space-between" align="flex-start">
        <div>
          <Title order={1} size="h2" className="user-text">
            {title}
          </Title>
          {subtitle !== undefined && (
            <Text c="dimmed" size="sm" component="div">
              {subtitle}
            </Text>
          )}
        </div>
        {actions !== undefined && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </Stack>
  );
}
