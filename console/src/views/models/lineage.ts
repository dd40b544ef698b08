/** The graph of what a version was made from: its nodes, arrows, and where they are drawn. */
import type { Schemas } from "../../api/client";
import { parseReference, registeredTeacher, type Reference } from "./references";

type Version = Schemas["ModelVersion"];

export interface LineageNode {
  id: string;
  kind: string;
  label: string;
  /** A line below the name. */
  note: string;
  column: number;
  link: NodeLink | null;
}

export type NodeLink =
  | { to: "model"; reference: Reference }
  | { to: "dataset"; reference: Reference }
  | { to: "job" | "spec" | "deployment"; id: string };

export interface Lineage {
  nodes: LineageNode[];
  arrows: { from: string; to: string }[];
}

/** Return the graph: teachers, the version that it inherits from, data and spec → job with its stages → version → deployments. */
export function lineageOf(version: Version, deployments: readonly string[] = []): Lineage {
  const made = version.lineage as Known;
  const sources = [...teacherNodes(version, made), ...inheritedNodes(version), ...dataNodes(made), ...specNodes(version, made)];
  const maker = makerNode(version, made);
  const own: LineageNode = {
    id: "version",
    kind: "model version",
    label: `${version.name}@${version.version}`,
    note: version.aliases.join(", "),
    column: 2,
    link: null,
  };
  const served = deployments.map((name): LineageNode => ({
    id: `deployment ${name}`,
    kind: "deployment",
    label: name,
    note: "",
    column: 3,
    link: { to: "deployment", id: name },
  }));
  return {
    nodes: [...sources, ...(maker === null ? [] : [maker]), own, ...served],
    arrows: [
      ...sources.map(({ id }) => ({ from: id, to: maker === null ? "version" : "maker" })),
      ...(maker === null ? [] : [{ from: "maker", to: "version" }]),
      ...served.map(({ id }) => ({ from: "version", to: id })),
    ],
  };
}

interface Known {
  teacher?: { name: string; sha256: string } | null;
  teachers?: { name: string; sha256: string; share: number }[];
  /** With `inherit_from`: the model that the first stage has inherited from, in place of the teacher. */
  inherited?: { name: string; sha256: string } | null;
  dataset?: { name: string; version: number; pairs?: number; samples?: number } | null;
  data?: { url: string }[];
  spec?: {
    name?: string;
    teacher?: { model?: string };
    stages?: { name?: string; inherit?: string; inherit_from?: string | null; student?: unknown }[];
  };
  import?: { source?: string; file?: string };
}

function teacherNodes(version: Version, made: Known): LineageNode[] {
  const teachers = made.teachers ?? (made.teacher ? [{ ...made.teacher, share: 1 }] : []);
  return teachers.map((teacher, place) => {
    // A single teacher of the registry is named in full in the spec.
    const registered =
      registeredTeacher(teacher.name) ?? (teachers.length === 1 ? registeredTeacher(made.spec?.teacher?.model) : null);
    return {
      id: `teacher ${place}`,
      kind: "teacher",
      label: teacher.name || version.teacher || "teacher",
      column: 0,
      note:
        teachers.length > 1 ? `share ${(100 * teacher.share).toFixed(0)} %` : `SHA-256 ${(teacher.sha256 ?? "").slice(0, 12)}…`,
      link: registered === null ? null : { to: "model", reference: registered },
    };
  });
}

/** Return the name of the model that a version inherits from in place of its teacher, and its version of the registry. */
export function inheritedOf({ lineage }: Version): { name: string; reference: Reference | null } | null {
  const { inherited, spec } = lineage as Known;
  if (!inherited) return null;
  const named = spec?.stages?.[0]?.inherit_from;
  return { name: inherited.name, reference: registeredTeacher(named) ?? registeredTeacher(inherited.name) };
}

function inheritedNodes(version: Version): LineageNode[] {
  const found = inheritedOf(version);
  if (found === null) return [];
  const { name, reference } = found;
  return [
    {
      id: "inherited",
      kind: "inherits from",
      label: reference === null ? name : `${reference.name}@${reference.version}`,
      note: "in place of the teacher",
      column: 0,
      link: reference === null ? null : { to: "model", reference },
    },
  ];
}

function dataNodes(made: Known): LineageNode[] {
  if (made.dataset) {
    const { name, version, pairs } = made.dataset;
    const note = pairs === undefined ? "" : `${pairs.toLocaleString()} pairs`;
    return [
      {
        id: "data",
        kind: "data set",
        label: `${name}@${version}`,
        note,
        column: 0,
        link: { to: "dataset", reference: parseReference(`${name}@${version}`) },
      },
    ];
  }
  const shards = made.data ?? [];
  if (shards.length === 0) return [];
  const label = shards[0]!.url.split("/").at(-1) || shards[0]!.url;
  return [
    {
      id: "data",
      kind: "data",
      label,
      note: shards.length === 1 ? "1 shard" : `and ${shards.length - 1} more shards`,
      column: 0,
      link: null,
    },
  ];
}

function specNodes(version: Version, made: Known): LineageNode[] {
  if (made.spec === undefined || version.job == null) return [];
  const stages = (made.spec.stages ?? []).map((stage) => `${stage.name ?? "stage"} (${stage.inherit ?? "manual"})`);
  return [
    {
      id: "spec",
      kind: "spec",
      label: made.spec.name ?? "spec",
      note: stages.join(" → "),
      column: 0,
      link: { to: "spec", id: version.job },
    },
  ];
}

function makerNode(version: Version, made: Known): LineageNode | null {
  if (made.import !== undefined) {
    return {
      id: "maker",
      kind: "import",
      label: made.import.file ?? made.import.source ?? "file",
      note: "",
      column: 1,
      link: null,
    };
  }
  if (version.job == null) return null;
  const stages = made.spec?.stages?.length ?? 0;
  const note = stages === 0 ? "" : `${stages} stage${stages === 1 ? "" : "s"}`;
  return { id: "maker", kind: "job", label: version.job, note, column: 1, link: { to: "job", id: version.job } };
}

export interface PlacedNode extends LineageNode {
  left: number;
  top: number;
}

export const NODE = { width: 206, height: 62, gapX: 52, gapY: 16 };

/** Place the nodes in columns; where there is no room for them, below each other. */
export function placeNodes(
  nodes: readonly LineageNode[],
  width: number,
): { nodes: PlacedNode[]; width: number; height: number; isNarrow: boolean } {
  const columns = [...new Set(nodes.map((node) => node.column))].sort((a, b) => a - b);
  const needed = columns.length * (NODE.width + NODE.gapX) - NODE.gapX;
  if (needed > width) {
    const placed = nodes.map((node, row) => ({ ...node, left: 0, top: row * (NODE.height + 26) }));
    return { nodes: placed, width: NODE.width + 40, height: nodes.length * (NODE.height + 26) - 26, isNarrow: true };
  }
  const tallest = Math.max(...columns.map((column) => nodes.filter((node) => node.column === column).length), 1);
  const height = tallest * (NODE.height + NODE.gapY) - NODE.gapY;
  const placed = columns.flatMap((column, place) => {
    const mine = nodes.filter((node) => node.column === column);
    const own = mine.length * (NODE.height + NODE.gapY) - NODE.gapY;
    return mine.map((node, row) => ({
      ...node,
      left: place * (NODE.width + NODE.gapX),
      top: (height - own) / 2 + row * (NODE.height + NODE.gapY),
    }));
  });
  return { nodes: placed, width: needed, height, isNarrow: false };
}
