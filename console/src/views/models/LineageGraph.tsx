import { useNavigate, useRouter } from "@tanstack/react-router";
import type { MouseEvent } from "react";
import { visible } from "../../app/labels";
import { NODE, type NodeLink, type PlacedNode } from "./lineage";

interface Props {
  nodes: PlacedNode[];
  arrows: { from: string; to: string }[];
  width: number;
  height: number;
  isNarrow: boolean;
}

/** The graph as a drawing: boxes are links where they lead somewhere. */
export function LineageGraph({ nodes, arrows, width, height, isNarrow }: Props) {
  const place = new Map(nodes.map((node) => [node.id, node]));
  return (
    <svg
      width={width}
      height={height + 4}
      role="group"
      aria-label="Lineage, from what was used to what was made"
      style={{ display: "block", maxWidth: "100%" }}
    >
      <defs>
        <marker id="lineage-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
          <path d="M0 0L8 4L0 8z" fill="var(--mantine-color-dimmed)" />
        </marker>
      </defs>
      <g fill="none" stroke="var(--mantine-color-dimmed)" strokeWidth={1.3} markerEnd="url(#lineage-arrow)" aria-hidden>
        {arrows.map(({ from, to }) => (
          <path key={`${from} ${to}`} d={arrow(place.get(from)!, place.get(to)!, isNarrow)} markerEnd="url(#lineage-arrow)" />
        ))}
      </g>
      {nodes.map((node) => (
        <Node key={node.id} node={node} />
      ))}
    </svg>
  );
}

function arrow(from: PlacedNode, to: PlacedNode, isNarrow: boolean): string {
  if (isNarrow) {
    // Along the right side, past the boxes between.
    const [start, end] = [from.top + NODE.height / 2, to.top + NODE.height / 2];
    const side = NODE.width + 22;
    return `M${NODE.width} ${start}C${side} ${start} ${side} ${end} ${NODE.width + 2} ${end}`;
  }
  const [x1, y1, x2, y2] = [from.left + NODE.width, from.top + NODE.height / 2, to.left - 2, to.top + NODE.height / 2];
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}

function Node({ node }: { node: PlacedNode }) {
  const router = useRouter();
  const navigate = useNavigate();
  const box = <Drawing node={node} />;
  const said = [node.kind, node.label, node.note]
    .filter((each) => each !== "")
    .map((each) => visible(each, 200))
    .join(", ");
  if (node.link === null) {
    return (
      <g role="img" aria-label={said}>
        {box}
      </g>
    );
  }
  const target = targetOf(node.link);
  const open = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    void navigate(target);
  };
  return (
    <a href={router.buildLocation(target).href} onClick={open} aria-label={said}>
      {box}
    </a>
  );
}

function targetOf(link: NodeLink) {
  if (link.to === "model")
    return { to: "/models/$name", params: { name: link.reference.name }, search: { version: link.reference.version } } as const;
  if (link.to === "dataset")
    return { to: "/datasets/$name", params: { name: link.reference.name }, search: { version: link.reference.version } } as const;
  if (link.to === "deployment") return { to: "/service/deployments/$name", params: { name: link.id } } as const;
  return { to: "/jobs/$jobId", params: { jobId: link.id }, search: link.to === "spec" ? { tab: "spec" } : {} } as const;
}

const CHARACTERS = 28;

function Drawing({ node }: { node: PlacedNode }) {
  const isLink = node.link !== null;
  const line = (text: string) => visible(text.length > CHARACTERS ? `${text.slice(0, CHARACTERS - 1)}…` : text);
  return (
    <g transform={`translate(${node.left} ${node.top + 2})`}>
      <title>{visible([node.label, node.note].filter(Boolean).join("\n"), 300)}</title>
      <rect
        width={NODE.width}
        height={NODE.height}
        rx={6}
        fill="var(--mantine-color-body)"
        stroke={node.id === "version" ? "var(--mantine-color-text)" : "var(--mantine-color-default-border)"}
        strokeWidth={node.id === "version" ? 1.6 : 1}
      />
      <g fontSize={11} fill="var(--mantine-color-dimmed)" style={{ unicodeBidi: "isolate" }}>
        <text x={10} y={17}>
          {node.kind}
        </text>
        <text x={10} y={53}>
          {line(node.note)}
        </text>
      </g>
      <text
        x={10}
        y={36}
        fontSize={13}
        fontWeight={600}
        fill={isLink ? "var(--mantine-color-anchor)" : "var(--mantine-color-text)"}
      >
        {line(node.label)}
      </text>
    </g>
  );
}
