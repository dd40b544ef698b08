"""Refusing a reinforcement that does not belong to a job: its embeddings would be those of other images or of another teacher."""

from collections.abc import Sequence
from typing import Any

from tinyclip.artifacts.documents import ReinforcementDocument, StoredTeacher
from tinyclip.schemas.datasets import DatasetVersion
from tinyclip.schemas.spec import JobSpec

from tinyclip_workers.data.reinforcement.stored import reinforcement_error

COMPARED = {
    "sha256": "the weights", "embed_dim": "the embedding size", "image_size": "the image size",
    "interpolation": "the filter of images",
    "image_mean": "the mean of colours", "image_std": "the deviation of colours",
}  # fmt: skip
SHARE_TOLERANCE = 1e-6


def check_reinforcement(
    document: ReinforcementDocument,
    spec: JobSpec,
    version: DatasetVersion | None,
    teachers: Sequence[StoredTeacher],
    context_lengths: Sequence[int] = (),
) -> None:
    """Raise DataError naming the first difference, both values and the remedy.

    `version`: the job's data set. `teachers`: those that the job has loaded, the first ones of its spec; without a digest if
    the weights were not read. `context_lengths`: of the students.
    """
    refuse = _Refusal(document)
    found = None if version is None else f"{version.name}@{version.version}"
    refuse.unless_equal("the data set", f"{document.dataset}@{document.version}", found)
    refuse.unless_equal("the digest of the data set", document.digest, version.digest if version else None)
    augment = spec.data.train.augment
    for name in type(augment).model_fields:
        stored, given = getattr(document.augment, name), getattr(augment, name)
        refuse.unless_equal(f"data.train.augment.{name}", stored, given, "set it to the stored value")
    shares = [at.share for at in spec.every_teacher()]
    refuse.unless_equal("the number of teachers", len(document.teachers), len(shares))
    for number, (stored_teacher, share) in enumerate(zip(document.teachers, shares, strict=True)):
        if abs(stored_teacher.weight - share) > SHARE_TOLERANCE:
            refuse(f"the weight of teacher {number}", stored_teacher.weight, share, "set the weights to the stored ones")
    for number, (stored_teacher, teacher) in enumerate(zip(document.teachers, teachers, strict=False)):
        for field, what in COMPARED.items():
            stored, given = getattr(stored_teacher, field), getattr(teacher, field)
            if given != "":
                refuse.unless_equal(f"{what} of teacher {number} ({teacher.name})", stored, given)
    for length in context_lengths:
        remedy = "leave text.context_length out of the student"
        refuse.unless_equal("the tokens of a text that a student reads", document.context_length, length, remedy)


class _Refusal:
    """Raises the error of a difference."""

    def __init__(self, document: ReinforcementDocument) -> None:
        self._id = document.id

    def unless_equal(self, what: str, stored: Any, given: Any, remedy: str = "") -> None:
        if stored != given:
            self(what, stored, given, remedy)

    def __call__(self, what: str, stored: Any, given: Any, remedy: str = "") -> None:
        way_out = f"{remedy}, make" if remedy else "make"
        raise reinforcement_error(
            self._id,
            f"cannot be used: {what} was {_shown(stored)} when it was made, this job has {_shown(given)}; "
            f"{way_out} a reinforcement for this job, or omit data.train.reinforcement",
        )


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # a digest
