/** References of versions: `emoji@3`, and what is written of teachers. */

export interface Reference {
  name: string;
  version: string;
}

/** In the list of compared models: the teacher of the first version. */
export const TEACHER = "teacher";

export function referenceOf({ name, version }: { name: string; version: number }): string {
  return `${name}@${version}`;
}

/** Return the parts of `name@version` or `name`, whose version is the latest. */
export function parseReference(reference: string): Reference {
  const at = reference.lastIndexOf("@");
  return at < 0 ? { name: reference, version: "latest" } : { name: reference.slice(0, at), version: reference.slice(at + 1) };
}

/** Return the version of the registry that a teacher is (`registry:emoji@3`, `emoji@3`); null for one from elsewhere. */
export function registeredTeacher(teacher: string | null | undefined): Reference | null {
  const found = /^(?:registry:)?([a-z0-9][a-z0-9._-]{0,62})@(\d{1,9})$/.exec(teacher ?? "");
  return found === null ? null : { name: found[1]!, version: found[2]! };
}
