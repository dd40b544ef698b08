/** Sizes of students beside their teacher. */
import type { Schemas } from "../../../api/client";

export type Summary = Schemas["StudentSummary"];

/** Parameters of both towers, without the token embedding. */
export function paramsOf({ image_params, text_params_without_embedding }: Summary): number {
  return image_params + text_params_without_embedding;
}

/** The student's share of the teacher's parameters; null without a teacher. */
export function shareOf(
  student: Summary,
  teacher: Summary | null | undefined,
  size: (summary: Summary) => number,
): number | null {
  return teacher == null || size(teacher) === 0 ? null : size(student) / size(teacher);
}
