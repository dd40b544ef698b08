/** A bar of a value beside its number, for tables. */
import { Box } from "@mantine/core";

export function Bar({ share, color = "var(--mantine-color-cyan-6)" }: { share: number; color?: string }) {
  return (
    <Box
      bg="light-dark(var(--mantine-color-gray-2), var(--mantine-color-dark-5))"
      h={6}
      miw={36}
      style={{ borderRadius: 3 }}
      aria-hidden
    >
      <Box bg={color} h={6} w={`${100 * Math.max(0, Math.min(1, share))}%`} style={{ borderRadius: 3 }} />
    </Box>
  );
}
