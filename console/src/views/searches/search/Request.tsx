import { Code, List, Stack, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { visible } from "../../../app/labels";
import { Facts } from "../../models/Facts";
import type { Search } from "../requests";
import { aimInWords, budgetInWords, constraintInWords, variedInWords } from "../words";

/** What the search is asked for, in words. */
export function Request({ search }: { search: Search }) {
  const { post } = search;
  const varied = Object.entries(post.vary);
  return (
    <Stack gap="xs">
      {post.constraints.length > 0 && (
        <List size="sm" aria-label="Constraints">
          {post.constraints.map((constraint, place) => (
            <List.Item key={place} className="user-text">
              {visible(constraintInWords(constraint, search), 300)}
            </List.Item>
          ))}
        </List>
      )}
      <Text size="sm">{aimInWords(post)}</Text>
      <Facts
        facts={[
          ...varied.map(([path, values]): [string, ReactNode] => [
            `Varied: ${visible(path, 100)}`,
            <Code key={path} className="user-text">
              {visible(variedInWords(values), 300)}
            </Code>,
          ]),
          ["Budget", budgetInWords(post)],
        ]}
      />
    </Stack>
  );
}
