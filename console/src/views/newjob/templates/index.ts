/** Specs to start from: those of the examples, with their comments. */
import automatic from "./automatic.yaml?raw";
import half from "./half.yaml?raw";
import photos from "./photos.yaml?raw";
import published from "./published.yaml?raw";
import quarter from "./quarter.yaml?raw";

export interface Template {
  name: string;
  label: string;
  description: string;
  text: string;
}

export const TEMPLATES: Template[] = [
  {
    name: "half",
    label: "Half",
    description: "Half of the teacher's weights, 1000 steps. The example with emoji: minutes on two CPU cores.",
    text: half,
  },
  {
    name: "quarter",
    label: "Quarter",
    description: "A quarter of the teacher's weights, selected by importance, 400 steps.",
    text: quarter,
  },
  {
    name: "automatic",
    label: "Automatic",
    description: "Shape and learning rate are found while the student trains.",
    text: automatic,
  },
  {
    name: "photos",
    label: "Photos",
    description: "Photos with captions in a WebDataset of yours, and sizes that you choose.",
    text: photos,
  },
  {
    name: "published",
    label: "Published",
    description: "The two stages of the paper for ViT-B/32: 400 million pairs, 32 GPUs.",
    text: published,
  },
];
