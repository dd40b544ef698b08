/** What is wrong with the spec, below the editor; a click shows the place. */
import { Paper, Stack, Text, Title, UnstyledButton } from "@mantine/core";
import { visible } from "../../app/labels";
import { lineOf, type ListedMistake } from "./plan/mistakes";

const SHOWN = 50;

export function MistakeList({
  mistakes,
  text,
  onJump,
}: {
  mistakes: ListedMistake[];
  text: string;
  onJump: (mistake: ListedMistake) => void;
}) {
  if (mistakes.length === 0) return null;
  return (
    <Paper withBorder p="sm" mt="sm" component="section" aria-labelledby="mistakes-title">
      <Title order={2} size="h5" id="mistakes-title" mb={4}>
        {mistakes.length === 1 ? "1 mistake" : `${mistakes.length} mistakes`}
      </Title>
      <Stack gap={2} component="ol" m={0} p={0} style={{ listStyle: "none" }}>
        {mistakes.slice(0, SHOWN).map((mistake, place) => (
          <li key={place}>
            <UnstyledButton onClick={() => onJump(mistake)} w="100%" py={2}>
              <Text size="sm" className="user-text">
                <Text span fw={600} c="light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))">
                  Line {lineOf(text, mistake.from)}
                </Text>{" "}
                {mistake.where !== "" && (
                  <Text span ff="monospace">
                    {visible(mistake.where, 120)}:{" "}
                  </Text>
                )}
                {visible(mistake.message)}
              </Text>
            </UnstyledButton>
          </li>
        ))}
      </Stack>
      {mistakes.length > SHOWN && <Text size="sm">and {mistakes.length - SHOWN} more</Text>}
    </Paper>
  );
}
