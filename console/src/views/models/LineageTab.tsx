/** Where a version comes from: teacher, data, spec and job, with links; and which deployments it has. */
import { Box, Stack } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useMemo } from "react";
import type { Schemas } from "../../api/client";
import { visible } from "../../app/labels";
import { Facts } from "./Facts";
import { LineageGraph } from "./LineageGraph";
import { lineageOf, placeNodes } from "./lineage";
import { useDeployments } from "./queries";
import { referenceOf } from "./references";
import { Section } from "./Section";

export function LineageTab({ version }: { version: Schemas["ModelVersion"] }) {
  const { ref, width } = useElementSize();
  const deployments = useDeployments();
  const graph = useMemo(() => {
    const reference = referenceOf(version);
    const serving = (deployments.data ?? []).filter((each) =>
      [each.model, each.canary?.model, ...each.models].includes(reference),
    );
    return lineageOf(
      version,
      serving.slice(0, 12).map(({ name }) => name),
    );
  }, [version, deployments.data]);
  return (
    <Stack>
      <Section title="Where it comes from">
        <Box ref={ref}>{width > 0 && <LineageGraph {...placeNodes(graph.nodes, width)} arrows={graph.arrows} />}</Box>
      </Section>
      <Section title="Made with">
        <Origin version={version} />
      </Section>
    </Stack>
  );
}

/** Digests and versions of software, from which the version can be made again. */
function Origin({ version }: { version: Schemas["ModelVersion"] }) {
  const {
    code,
    teacher,
    dataset,
    import: imported,
  } = version.lineage as Record<string, Record<string, unknown> | null | undefined>;
  const texts = (facts: Record<string, unknown> | null | undefined, names: string[]): [string, string][] =>
    names
      .filter((name) => typeof facts?.[name] === "string" || typeof facts?.[name] === "number")
      .map((name) => [name, visible(String(facts![name]))]);
  return (
    <Facts
      facts={[
        ...texts(code, typeof code === "object" ? Object.keys(code ?? {}) : []),
        ...texts(teacher, ["sha256"]).map(([, value]): [string, string] => ["SHA-256 of the teacher's weights", value]),
        ...texts(dataset, ["digest"]).map(([, value]): [string, string] => ["Digest of the data set", value]),
        ...texts(imported, ["file", "source", "sha256", "preset", "origin"]).map(([name, value]): [string, string] => [
          `Imported: ${name}`,
          value,
        ]),
      ].map(([name, value]) => [
        name,
        <span key={name} className="user-text">
          {value}
        </span>,
      ])}
    />
  );
}
