/** Students of the stages beside their teacher: a column each. */
import { Progress, Table, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { compact, duration, integer, percent, significant } from "../../../app/format";
import { visible } from "../../../app/labels";
import { paramsOf, shareOf, type Summary } from "./sizes";
import type { Plan } from "./usePlan";
import { DataTable } from "../../../ui/ScrollTable";

type Stage = Plan["stages"][number];

export function StageTable({ plan }: { plan: Plan }) {
  const { teacher, stages } = plan;
  const rows: { label: string; of: (summary: Summary) => string }[] = [
    { label: "Image parameters", of: ({ image_params }) => compact(image_params) },
    { label: "Text parameters", of: ({ text_params_without_embedding }) => compact(text_params_without_embedding) },
    { label: "MACs of a pair", of: ({ macs }) => compact(macs) },
  ];
  return (
    <DataTable
      columns={[
        "Model",
        teacher !== null && "Teacher",
        ...stages.map(({ name }) => ({ head: visible(name, 40), className: "user-text" })),
      ]}
      withRowBorders={false}
      verticalSpacing={4}
      horizontalSpacing="xs"
      fz="sm"
      style={{ whiteSpace: "nowrap" }}
    >
      {rows.map(({ label, of }) => (
        <Row
          key={label}
          label={label}
          teacher={teacher === null ? null : of(teacher)}
          stages={stages}
          of={(stage) => `${stage.student.estimated ? "~" : ""}${of(stage.student)}`}
        />
      ))}
      {teacher !== null && (
        <Row
          label="Share of parameters"
          teacher="100 %"
          stages={stages}
          of={(stage) => <Share value={shareOf(stage.student, teacher, paramsOf)} />}
        />
      )}
      {teacher !== null && (
        <Row
          label="Share of MACs"
          teacher="100 %"
          stages={stages}
          of={(stage) => <Share value={shareOf(stage.student, teacher, ({ macs }) => macs)} />}
        />
      )}
      <Row label="Inherits" teacher={teacher === null ? null : ""} stages={stages} of={inherits} />
      <Row label="Steps" teacher={teacher === null ? null : ""} stages={stages} of={(stage) => integer(stage.steps)} />
      <Row
        label="Learning rate"
        teacher={teacher === null ? null : ""}
        stages={stages}
        of={(stage) => (typeof stage.lr === "number" ? significant(stage.lr) : stage.lr === "auto" ? "is tested" : "–")}
      />
      <Row
        label="Device time"
        teacher={teacher === null ? null : ""}
        stages={stages}
        of={(stage) => duration(Math.max(1, stage.device_hours * 3600))}
      />
    </DataTable>
  );
}

function Row({
  label,
  teacher,
  stages,
  of,
}: {
  label: string;
  teacher: ReactNode;
  stages: Stage[];
  of: (stage: Stage) => ReactNode;
}) {
  return (
    <Table.Tr>
      <Table.Th scope="row" fw={400}>
        {label}
      </Table.Th>
      {teacher !== null && <Table.Td>{teacher}</Table.Td>}
      {stages.map((stage) => (
        <Table.Td key={stage.index}>{of(stage)}</Table.Td>
      ))}
    </Table.Tr>
  );
}

function Share({ value }: { value: number | null }) {
  if (value === null) return "–";
  return (
    <>
      <Text span size="sm">
        {percent(value, 0)}
      </Text>
      <Progress value={100 * Math.min(1, value)} size={4} mt={2} w={72} aria-hidden />
    </>
  );
}

function inherits({ inherit, select, search }: Stage): string {
  if (inherit === "none") return "nothing";
  const how = inherit === "auto" ? search : select;
  return how == null ? inherit : `${inherit}, ${how}`;
}
