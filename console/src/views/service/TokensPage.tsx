import { Code, Stack, Text } from "@mantine/core";
import { holds } from "../../app/scopes";
import { useMe } from "../../app/Shell";
import { Page } from "../../ui/Page";
import { Answer, Empty } from "../../ui/states";
import { TokenList } from "./tokens/TokenList";

const WITH_TOKENS = `export TINYCLIP_AUTH=tokens
export TINYCLIP_DATA_ROOTS='["/datasets"]'   # what users may read
tinyclip-server create-token --name admin --scope admin
tinyclip-server up`;

export default function TokensPage() {
  const me = useMe();
  return (
    <Page title="Tokens" subtitle="Who may use the service, and what for.">
      <Answer of={me}>
        {(caller) =>
          caller.auth === "none" ? (
            <WithoutTokens />
          ) : holds(caller, "admin") ? (
            <TokenList me={caller} />
          ) : (
            <WithoutScope scopes={caller.scopes} />
          )
        }
      </Answer>
    </Page>
  );
}

function WithoutTokens() {
  return (
    <Empty title="This service requires no tokens">
      <Stack gap="xs" align="center">
        <Text>
          Everybody on this machine may do everything, and nobody else can reach it. To serve others, start it with tokens:
        </Text>
        <Code block ta="left" maw="calc(100vw - 64px)" style={{ overflowX: "auto" }} tabIndex={0}>
          {WITH_TOKENS}
        </Code>
        <Text>Then sign in here with that token, and create those of others.</Text>
      </Stack>
    </Empty>
  );
}

function WithoutScope({ scopes }: { scopes: string[] }) {
  return (
    <Empty title="Your token cannot see tokens">
      It has {scopes.length === 1 ? "the scope" : "the scopes"} {scopes.join(", ")}. Tokens are listed, created and revoked with
      the scope admin: ask an administrator of the project for one.
    </Empty>
  );
}
