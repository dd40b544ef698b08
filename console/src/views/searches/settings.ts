/** What a search has chosen for a trial, in short. */
import { integer, percent } from "../../app/format";
import { valueInWords } from "./words";

type Settings = Record<string, unknown>;

/** What the engine keeps with a trial for its own next decisions. */
const OWN = ["phase", "size", "shape", "scale", "from", "continues", "to_limit"];

interface Size {
  image: number;
  text: number;
  image_layers: number[];
  text_layers: number;
}

/** As `image 48 %, 12 blocks; text 50 %, 6 blocks`, or `optimizer.lr 0.0003`. */
export function settingsInWords(settings: Settings): string {
  const parts = isSize(settings.size) ? [...sizeInWords(settings.size)] : [];
  for (const [name, value] of Object.entries(settings)) {
    if (!isSize(settings.size) || !OWN.includes(name)) parts.push(`${name} ${valueInWords(value)}`);
  }
  return parts.join("; ");
}

function sizeInWords({ image, text, image_layers, text_layers }: Size): string[] {
  return [
    `image ${percent(image, 0)}, ${image_layers.map(integer).join("-")} blocks`,
    `text ${percent(text, 0)}, ${integer(text_layers)} blocks`,
  ];
}

function isSize(value: unknown): value is Size {
  if (typeof value !== "object" || value === null) return false;
  const { image, text, image_layers, text_layers } = value as Record<string, unknown>;
  return [image, text, text_layers].every((each) => typeof each === "number") && Array.isArray(image_layers);
}

/** Where its student comes from. */
export function originInWords({ from, continues, phase }: Settings): string {
  if (typeof continues === "number") return `trains the student of trial ${continues} further`;
  if (typeof from === "number") return `cut out of trial ${from}`;
  return typeof phase === "string" ? "cut out of the teacher" : "";
}
