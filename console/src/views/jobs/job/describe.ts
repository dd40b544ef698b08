/** Layouts in a line. */
import type { Job } from "../jobState";

type Student = NonNullable<Job["stages"][number]["student"]>;

export function describeLayout(layout: Student["layout"]): { image: string; text: string } {
  if ("library" in layout) return { image: `${layout.family}, ${layout.image_size} px`, text: `${layout.context_length} tokens` };
  const { image, text } = layout;
  const kind = image.kind === "vit" ? `ViT${image.patch_size == null ? "" : `/${image.patch_size}`}` : "ResNet";
  const blocks = image.layers.length === 1 ? `${image.layers[0]} layers` : `${image.layers.join("-")} blocks`;
  return {
    image: `${kind}, ${blocks}, width ${image.width}, ${image.image_size} px`,
    text: `${text.layers} layers, width ${text.width}, ${text.context_length} tokens`,
  };
}

const MAIN = ["top1", "image_to_text_r1", "text_to_image_r1", "mean_per_class"];

/** Return the score of a task that stands for the others, if there is one. */
export function mainScore(scores: Record<string, unknown>): string | undefined {
  return (
    MAIN.find((name) => typeof scores[name] === "number") ?? Object.keys(scores).find((name) => typeof scores[name] === "number")
  );
}

/** Return the end of a long address, by whole folders: `local-dir:/data/teachers/vit` as `…/teachers/vit`. */
export function endOf(address: string, most = 32): string {
  if (address.length <= most) return address;
  const end = address.split("/").slice(-2).join("/");
  return end.length < address.length && end.length <= most ? `…/${end}` : `…${address.slice(1 - most)}`;
}
