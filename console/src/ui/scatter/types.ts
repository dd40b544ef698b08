export type Mark = "circle" | "diamond" | "triangle" | "star";

/** Points of one kind; shape and colour both say which. */
export interface Group {
  name: string;
  color: string;
  mark: Mark;
  /** Less important than others. */
  isFaint?: boolean;
}

/** A line across the plot at a value of an axis. */
export interface Limit {
  axis: "x" | "y";
  at: number;
  label: string;
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
