/** Images that are queries: kept in memory only, never in the address. */

export interface QueryImage {
  id: string;
  name: string;
  content: Blob;
}

export const MOST_IMAGES = 16;
/** Limits of the API: of one image, and of all in a request. */
export const MOST_BYTES = 20 * 2 ** 20;
export const MOST_BYTES_TOGETHER = 64 * 2 ** 20 - 64 * 1024;

export interface NamedBlob {
  name: string;
  type: string;
  size: number;
}

/** Return why a file cannot be a query, naming it, or null. Nothing is ever made smaller to fit. */
export function fileProblem(file: NamedBlob): string | null {
  const name = file.name || "The pasted image";
  if (file.size === 0) return `${name} is empty.`;
  if (!file.type.startsWith("image/")) return `${name} is not an image${file.type === "" ? "" : ` (${file.type})`}.`;
  if (file.size > MOST_BYTES)
    return `${name} has ${mebibytes(file.size)} MiB; an image may have ${mebibytes(MOST_BYTES)} MiB at most.`;
  return null;
}

/** Return the files that fit beside those that are there, and why others do not. */
export function chosen<T extends NamedBlob>(
  present: { content: { size: number } }[],
  files: T[],
  most: number,
): { accepted: T[]; problems: string[] } {
  const accepted: T[] = [];
  const problems: string[] = [];
  let together = present.reduce((sum, image) => sum + image.content.size, 0);
  for (const file of files) {
    const problem = fileProblem(file);
    if (problem !== null) problems.push(problem);
    else if (present.length + accepted.length >= most) problems.push(`${file.name} is one too many; ${most} images at most.`);
    else if (together + file.size > MOST_BYTES_TOGETHER)
      problems.push(`${file.name} does not fit: all images may have ${mebibytes(MOST_BYTES_TOGETHER)} MiB together.`);
    else {
      accepted.push(file);
      together += file.size;
    }
  }
  return { accepted, problems };
}

function mebibytes(size: number): string {
  return (size / 2 ** 20).toFixed(size < 10 * 2 ** 20 ? 1 : 0);
}

/** `/image/3` or `/images/3` of an error as 3; `/image` as 0. */
export function placeOf(pointer: string): number {
  return Number(/^\/images?\/(\d+)/.exec(pointer)?.[1] ?? 0);
}
