import type { SampleUse } from "../queries";

/** What a sample is for, in words. */
export const USES: Record<SampleUse, string> = {
  training: "training",
  held_out: "held out",
  excluded: "excluded",
  unusable: "unusable",
};

export function readUse(given: string | undefined): SampleUse | undefined {
  return given !== undefined && given in USES ? (given as SampleUse) : undefined;
}
