export type Mark = "circle" | "diamond" | "triangle";

/** Points of one kind; shape and colour both say which. */
export interface Group {
  name: string;
  color: string;
  mark: Mark;
}

export interface Point {
  key: string;
  group: string;
  x: number;
  y: number;
  label: string;
  /** What the tooltip and screen readers add: names and values. */
  details: [string, string][];
  /** Where it leads; a point without is for reference. */
  href?: string;
}
