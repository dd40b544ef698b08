/** What a pruned model has kept of each block of what it inherits from. */
import type { Schemas } from "../../api/client";

export type Layout = Schemas["Layout"];
export type AnyLayout = Layout | Schemas["Architecture"];
type Tower = Layout["image"] | Layout["text"];

export interface BlockRow {
  /** The number of the block in what it was inherited from; in the model itself if that is not known. */
  source: number;
  /** Its number in the model; null for a block that was not inherited. */
  own: number | null;
  heads: number;
  units: number;
  /** Before. */
  allHeads: number;
  allUnits: number;
}

export interface TowerRows {
  name: "image" | "text";
  width: number;
  widthBefore: number;
  blocks: BlockRow[];
}

export function isLayout(layout: AnyLayout): layout is Layout {
  return "text" in layout && "image" in layout;
}

/** Return the rows of both towers; none for a tower that is no transformer. */
export function layoutRows(
  layout: Layout,
  from: AnyLayout | null | undefined,
  blocks: Schemas["InheritedBlocks"] | null | undefined,
): TowerRows[] {
  const before = from != null && isLayout(from) ? from : null;
  const towers: ["image" | "text", Tower, Tower | null][] = [
    ["image", layout.image, before?.image ?? null],
    ["text", layout.text, before?.text ?? null],
  ];
  return towers.flatMap(([name, own, full]) => {
    if (!own.heads || !own.mlp) return [];
    return [{ name, width: own.width, widthBefore: full?.width ?? own.width, blocks: blockRows(own, full, blocks?.[name]) }];
  });
}

function blockRows(own: Tower, full: Tower | null, sources: readonly number[] | null | undefined): BlockRow[] {
  const [heads, units] = [own.heads ?? [], own.mlp ?? []];
  const [allHeads, allUnits] = [full?.heads ?? [], full?.mlp ?? []];
  const from = sources ?? (allHeads.length === heads.length || allHeads.length === 0 ? heads.map((_, block) => block) : null);
  const [most, mostUnits] = [Math.max(...heads, ...allHeads, 0), Math.max(...units, ...allUnits, 0)];
  if (from === null) {
    return heads.map((count, block) => ({
      source: block,
      own: block,
      heads: count,
      units: units[block] ?? 0,
      allHeads: most,
      allUnits: mostUnits,
    }));
  }
  return Array.from({ length: Math.max(allHeads.length, heads.length) }, (_, source) => {
    const block = from.indexOf(source);
    const kept =
      block < 0 ? { own: null, heads: 0, units: 0 } : { own: block, heads: heads[block] ?? 0, units: units[block] ?? 0 };
    return { source, ...kept, allHeads: allHeads[source] ?? most, allUnits: allUnits[source] ?? mostUnits };
  });
}

/** Return a tower with equal blocks as a sentence; null if its blocks differ. */
export function uniformSentence(tower: Tower): string | null {
  const [heads, units] = [tower.heads ?? [], tower.mlp ?? []];
  if (heads.length === 0 || new Set(heads).size > 1 || new Set(units).size > 1) return null;
  const blocks = heads.length === 1 ? "1 block" : `${heads.length} equal blocks`;
  return `${blocks} of ${plural(heads[0]!, "head")} and ${plural(units[0] ?? 0, "MLP unit")}, ${plural(tower.width, "channel")}`;
}

/** Return what the image tower of a ResNet has, as a sentence. */
export function resnetSentence({ layers, width }: Layout["image"]): string {
  return `ResNet of width ${width} with ${layers.join(", ")} bottlenecks in its four stages`;
}

/** Return how much of the heads and MLP units of all blocks was kept. */
export function keptOfTower({ blocks }: TowerRows): { heads: [number, number]; units: [number, number] } {
  const sum = (value: (row: BlockRow) => number) => blocks.reduce((total, row) => total + value(row), 0);
  return {
    heads: [sum((row) => row.heads), sum((row) => row.allHeads)],
    units: [sum((row) => row.units), sum((row) => row.allUnits)],
  };
}

function plural(count: number, noun: string): string {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}
