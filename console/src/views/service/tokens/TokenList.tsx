/** The tokens of the project, without their secrets. */
import { Badge, Button, Group, Table, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconPlus } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, ask, type Schemas } from "../../../api/client";
import { allPages } from "../../../api/pages";
import { ago, dateTime } from "../../../app/format";
import { visible } from "../../../app/labels";
import { SLOW_MS } from "../../../app/queries";
import { done, failed } from "../../../ui/notify";
import { Answer, Empty, StateBadge } from "../../../ui/states";
import { Confirm } from "../../../ui/Confirm";
import { TokenDialog } from "./TokenDialog";
import { ScrollTable } from "../../../ui/ScrollTable";

type Token = Schemas["Token"];

export function TokenList({ me }: { me: Schemas["Me"] }) {
  const tokens = useQuery({
    queryKey: ["tokens"],
    queryFn: () => allPages((page_token) => ask(api.GET("/v1/tokens", { params: { query: { page_size: 200, page_token } } }))),
    refetchInterval: SLOW_MS,
  });
  const [isCreating, creation] = useDisclosure();
  return (
    <>
      <Group justify="flex-end">
        <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={creation.open}>
          Create a token
        </Button>
      </Group>
      <Answer of={tokens}>
        {(items) => (items.length === 0 ? <Empty title="No tokens" /> : <TokenTable items={items} own={me.token?.id ?? null} />)}
      </Answer>
      <TokenDialog opened={isCreating} onClose={creation.close} />
    </>
  );
}

function TokenTable({ items, own }: { items: Token[]; own: string | null }) {
  const [revoked, setRevoked] = useState<Token | null>(null);
  return (
    <>
      <ScrollTable
        label="Table of tokens"
        minWidth={820}
        columns={["Name", "State", "Scopes", "Begins with", "Expires", "Created", "By", "Actions"]}
      >
        {items.map((token) => (
          <TokenRow key={token.id} token={token} isOwn={token.id === own} onRevoke={() => setRevoked(token)} />
        ))}
      </ScrollTable>
      <RevokeToken token={revoked} isOwn={revoked?.id === own} onClose={() => setRevoked(null)} />
    </>
  );
}

function TokenRow({ token, isOwn, onRevoke }: { token: Token; isOwn: boolean; onRevoke: () => void }) {
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={600} className="user-text">
        {visible(token.name)}
        {isOwn && (
          <Text span size="xs" c="dimmed">
            {" "}
            (yours)
          </Text>
        )}
      </Table.Th>
      <Table.Td miw={96}>
        <StateBadge state={token.state} />
      </Table.Td>
      <Table.Td>
        <Group gap={4}>
          {token.scopes.map((scope) => (
            <Badge key={scope} variant="default" radius="sm" tt="none">
              {scope}
            </Badge>
          ))}
        </Group>
      </Table.Td>
      <Table.Td ff="monospace">{visible(token.hint)}</Table.Td>
      <Table.Td>{token.expires_at == null ? "never" : dateTime(token.expires_at)}</Table.Td>
      <Table.Td>{ago(token.created_at)}</Table.Td>
      <Table.Td className="user-text">{visible(token.created_by)}</Table.Td>
      <Table.Td>
        {token.state === "active" && (
          <Button size="compact-sm" variant="default" onClick={onRevoke} aria-label={`Revoke ${token.name}`}>
            Revoke
          </Button>
        )}
      </Table.Td>
    </Table.Tr>
  );
}

function RevokeToken({ token, isOwn, onClose }: { token: Token | null; isOwn: boolean; onClose: () => void }) {
  const client = useQueryClient();
  const revocation = useMutation({
    mutationFn: (id: string) => ask(api.DELETE("/v1/tokens/{token_id}", { params: { path: { token_id: id } } })),
    onSuccess: (revoked) => {
      done(`Token ${revoked.name} is revoked`);
      void client.invalidateQueries({ queryKey: ["tokens"] });
      onClose();
    },
    onError: (error) => failed("Revocation", error),
  });
  return (
    <Confirm
      opened={token !== null}
      title="Revoke a token"
      action="Revoke"
      isPending={revocation.isPending}
      onConfirm={() => token !== null && revocation.mutate(token.id)}
      onClose={onClose}
    >
      <strong className="user-text">{visible(token?.name ?? "")}</strong> stops working at once, and cannot be enabled again.
      {isOwn && " It is the token that you are signed in with: you are signed out."}
    </Confirm>
  );
}
