/** The top-1 of each class, the worst first, beside the teacher's. */
import { Select, Stack, Table, Text } from "@mantine/core";
import { useMemo, useState } from "react";
import type { Schemas } from "../../api/client";
import { integer, percent } from "../../app/format";
import { visible } from "../../app/labels";
import { TextLink } from "../../ui/links";
import { points } from "./metrics";
import { classesOfSpec, countedClasses, difference, joinPerClass, sortClasses, type ClassOrder, type ClassRow } from "./perClass";
import { useClassCounts } from "./queries";
import { referenceOf, TEACHER } from "./references";
import { VirtualTable } from "./VirtualTable";
import { right } from "../../ui/ScrollTable";

type Version = Schemas["ModelVersion"];

const ORDERS: { value: ClassOrder; label: string }[] = [
  { value: "worst", label: "Worst first" },
  { value: "difference", label: "Most lost against the teacher" },
  { value: "images", label: "Most images first" },
  { value: "label", label: "By name" },
];

export function ClassTable({ version, task }: { version: Version; task: string }) {
  const [order, setOrder] = useState<ClassOrder>("worst");
  const rows = useClassRows(version, task);
  const sorted = useMemo(() => sortClasses(rows, order), [rows, order]);
  const hasTeacher = rows.some((row) => row.shares[1] != null);
  const hasImages = rows.some((row) => row.images !== null);
  const hasPredictions = version.predictions[task] !== undefined;
  if (rows.length === 0) return <Text size="sm">The evaluation kept no numbers for its classes.</Text>;
  return (
    <Stack gap="sm">
      <Select
        label="Order"
        data={ORDERS.filter(({ value }) => (value === "difference" ? hasTeacher : value === "images" ? hasImages : true))}
        value={order}
        onChange={(value) => value !== null && setOrder(value)}
        allowDeselect={false}
        w={280}
      />
      <VirtualTable
        label={`Classes of ${visible(task)}`}
        columns={[
          "Class",
          hasImages && right("Images"),
          right("top-1"),
          hasTeacher && right("Teacher"),
          hasTeacher && right("Difference, points"),
          hasPredictions && "Images",
        ]}
        count={sorted.length}
        minWidth={460}
        rowKey={(index) => sorted[index]!.label}
        row={(index) => {
          const link = hasPredictions ? <Images version={version} task={task} label={sorted[index]!.label} /> : null;
          return <Cells row={sorted[index]!} hasImages={hasImages} hasTeacher={hasTeacher} link={link} />;
        }}
      />
    </Stack>
  );
}

/** Counts of the predicted images have all names; without them the names are those that are known. */
function useClassRows(version: Version, task: string): ClassRow[] {
  const kept = version.predictions[task];
  const models = kept?.teacher === true ? [referenceOf(version), TEACHER] : [referenceOf(version)];
  const counts = useClassCounts(models, task, kept !== undefined);
  return useMemo(() => {
    const scores = version.evaluation[task];
    const counted = countedClasses(counts.data?.classes ?? []);
    return counted.length > 0 ? counted : joinPerClass([scores?.student, scores?.teacher], classesOfSpec(version.lineage, task));
  }, [counts.data, version, task]);
}

function Cells({
  row,
  hasImages,
  hasTeacher,
  link,
}: {
  row: ClassRow;
  hasImages: boolean;
  hasTeacher: boolean;
  link: React.ReactNode;
}) {
  return (
    <>
      <Table.Th scope="row" fw={400} className="user-text">
        {visible(row.label, 200)}
      </Table.Th>
      {hasImages && <Table.Td ta="right">{integer(row.images)}</Table.Td>}
      <Table.Td ta="right" fw={600}>
        {percent(row.shares[0])}
      </Table.Td>
      {hasTeacher && <Table.Td ta="right">{percent(row.shares[1])}</Table.Td>}
      {hasTeacher && <Table.Td ta="right">{points(difference(row))}</Table.Td>}
      {link !== null && <Table.Td>{link}</Table.Td>}
    </>
  );
}

function Images({ version, task, label }: { version: Version; task: string; label: string }) {
  const models = version.predictions[task]?.teacher === true ? [referenceOf(version), TEACHER] : [referenceOf(version)];
  return (
    <TextLink
      inherit
      to="/compare-models"
      search={{ models, task, label, show: "all" }}
      aria-label={`Show the images of ${visible(label, 200)}`}
    >
      Show
    </TextLink>
  );
}
