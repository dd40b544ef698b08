/** The facts of a version, its headline numbers, the aliases, and all versions of the model. */
import { SimpleGrid, Stack, Table, Text } from "@mantine/core";
import type { Schemas } from "../../api/client";
import { compact, dateTime, integer, percent } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { Aliases } from "./Aliases";
import { Facts } from "./Facts";
import { inheritedOf } from "./lineage";
import { formatMetric, keptShare, metricLabel, sharesOf, valueOf } from "./metrics";
import { registeredTeacher, type Reference } from "./references";
import { Section } from "./Section";
import { VersionsTable } from "./VersionsTable";
import { right, ScrollTable } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];

export function OverviewTab({ model, version }: { model: Schemas["Model"]; version: Version }) {
  return (
    <Stack>
      <SimpleGrid cols={{ base: 1, md: 2 }}>
        <Section title="Facts">
          <VersionFacts version={version} />
        </Section>
        <Stack>
          <Section title="Scores">
            <Headline version={version} />
          </Section>
          <Section title="Aliases">
            <Aliases model={model} version={version} />
          </Section>
        </Stack>
      </SimpleGrid>
      <Section title="Versions">
        <VersionsTable name={model.name} shown={version.version} />
      </Section>
    </Stack>
  );
}

function VersionFacts({ version }: { version: Version }) {
  const { params, compatible_with: compatible } = version;
  const inherited = inheritedOf(version);
  return (
    <Facts
      facts={[
        ["Image params", compact(params.image)],
        ["Text params", `${compact(params.text_without_embedding)} (${compact(params.text)} with token embedding)`],
        ["MACs", `${compact(version.macs)} for an image and a text`],
        ["Embedding", `${integer(version.embed_dim)} numbers`],
        ["Shorter embeddings", version.embedding_sizes.slice(0, -1).map(integer).join(", ")],
        ["Images", `${version.image_size} px`],
        ["Texts", `${version.context_length} tokens`],
        ["Teacher", <Teacher key="teacher" version={version} />],
        ["Inherits from", inherited === null ? null : <ModelName key="inherited" {...inherited} />],
        [
          "Teacher params",
          version.teacher_params == null
            ? null
            : `${compact(version.teacher_params.image)} image, ${compact(version.teacher_params.text_without_embedding)} text`,
        ],
        [
          "Compatible with the teacher",
          compatible == null ? null : `${percent(compatible.share)} of its own R@10 in searches across the models`,
        ],
        [
          "Job",
          version.job == null ? null : (
            <TextLink inherit key="job" to="/jobs/$jobId" params={{ jobId: version.job }}>
              {version.job}
            </TextLink>
          ),
        ],
        ["Created", dateTime(version.created_at)],
      ]}
    />
  );
}

function Teacher({ version }: { version: Version }) {
  if (version.teacher == null) return <>none</>;
  return <ModelName name={version.teacher} reference={registeredTeacher(version.teacher)} />;
}

function ModelName({ name, reference }: { name: string; reference: Reference | null }) {
  if (reference === null) return <span className="user-text">{visible(name)}</span>;
  return (
    <TextLink
      inherit
      to="/models/$name"
      params={{ name: reference.name }}
      search={{ version: reference.version }}
      className="user-text"
    >
      {visible(name)}
    </TextLink>
  );
}

/** The first number of each task, beside the teacher's. */
function Headline({ version }: { version: Version }) {
  const tasks = Object.entries(version.evaluation).flatMap(([task, scores]) =>
    sharesOf(scores.student)
      .slice(0, 1)
      .map((metric) => ({ task, metric, scores })),
  );
  if (tasks.length === 0) return <Text size="sm">Not evaluated yet: the Evaluation tab says how.</Text>;
  return (
    <ScrollTable label="Table of scores" minWidth={400} columns={["Task", right("Student"), right("Teacher"), right("Kept")]}>
      {tasks.map(({ task, metric, scores }) => {
        const [student, teacher] = [valueOf(scores.student, metric), valueOf(scores.teacher, metric)];
        return (
          <Table.Tr key={task}>
            <Table.Th scope="row" className="user-text">
              {visible(task)}, {metricLabel(metric)}
            </Table.Th>
            <Table.Td ta="right" style={{ whiteSpace: "nowrap" }}>
              {formatMetric(metric, student)}
            </Table.Td>
            <Table.Td ta="right" style={{ whiteSpace: "nowrap" }}>
              {formatMetric(metric, teacher)}
            </Table.Td>
            <Table.Td ta="right" style={{ whiteSpace: "nowrap" }}>
              {percent(keptShare(student, teacher))}
            </Table.Td>
          </Table.Tr>
        );
      })}
    </ScrollTable>
  );
}
