"""Training from stored embeddings: the targets of a batch, and their verification by the live teachers before the first step.

B batch, E embedding size of a teacher.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tinyclip.artifacts.documents import StoredTeacher
from tinyclip.artifacts.paths import reinforcement_folder
from tinyclip.schemas import JobSpec
from torch import Tensor

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement, reinforcement_error
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer, TeacherInputs
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.order import reader_count
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.precision import exact
from tinyclip_workers.model.towers import normalized, trims_padding
from tinyclip_workers.model.transfer import on_device, to_device
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training.objective.losses import SigmoidScale, TeacherEmbeddings
from tinyclip_workers.training.stage import Stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher, teachers_forward
from tinyclip_workers.training.teachers.inputs import InputPreparation

log = logging.getLogger(__name__)

VERIFIED_PAIRS, VERIFICATION_READERS = 16, 8
VERIFICATION_STREAM = 2_000_003
"""Added to the spec's seed: other jobs verify other pairs."""
LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.9999, "int8": 0.9995}
"""Of a stored embedding to the live teacher's. Rounding was measured with the emoji teachers: it costs 2e-6 in bf16 and 5e-5 in
int8. Another view of the image costs 1e-2 in the median, another image 0.9."""
LEAST_COSINE_BF16 = 0.998
"""The same if the teachers have computed in bf16, which costs 2e-4, or elsewhere."""


@dataclass(frozen=True)
class StoredTargets:
    """The teachers of a stage, whose embeddings come with the batches."""

    teachers: Sequence[StoredTeacher]
    """Those that the stage uses: the first ones of the reinforcement."""
    scale: float | None
    """Their similarity multiplier; None: each one's own."""
    device: torch.device

    @property
    def embed_dim(self) -> int:
        """Embedding size of the first teacher (E)."""
        return self.teachers[0].embed_dim

    def embeddings(self, batch: Batch) -> list[TeacherEmbeddings]:
        """Return the embeddings of a batch by each teacher, as `teachers_forward` computes them."""
        assert batch.targets is not None, "the stream of a stage with stored targets has them"
        return [
            TeacherEmbeddings(
                self._unit(image_BE),
                self._unit(text_BE),
                self.scale or teacher.scale,
                teacher.weight,
                None if teacher.bias is None else SigmoidScale(teacher.scale, teacher.bias),
            )
            for teacher, (image_BE, text_BE) in zip(self.teachers, batch.targets, strict=False)
        ]

    def _unit(self, stored_BE: Tensor) -> Tensor:
        """Return embeddings in fp32 and of length 1, which rounding has changed."""
        return normalized(to_device(stored_BE, self.device))


def open_reinforcement(run: JobAttempt, stage: Stage) -> StoredReinforcement | None:
    """Open the reinforcement that the job's spec names; None if it names none, or if the stage uses no teacher.

    Raises DataError, OSError.
    """
    id, version = run.spec.data.train.reinforcement, run.document.dataset
    if id is None or not stage.objective.teacher_terms():
        return None
    if version is None:
        raise reinforcement_error(id, "belongs to a data set, and the job has none; name it in data.train.dataset")
    return StoredReinforcement.open(run.store, reinforcement_folder(version.name, version.version, id))


def verify_stored(
    stored: StoredReinforcement,
    spec: JobSpec,
    index: DatasetIndex,
    student: LoadedModel,
    teachers: Sequence[FrozenTeacher],
    device: torch.device,
) -> float:
    """Compute the embeddings of a few pairs again; returns the least cosine to the stored ones.

    `student`: its size, tokenizer and colours. Raises DataError if a stored embedding is not the teacher's.
    """
    readings = [teacher.reading for teacher in teachers]
    prepare = InputPreparation((student.image_mean, student.image_std), readings, spec.data.train.augment, device)
    batch, document = _some_pairs(stored, spec, index, student, prepare.teacher_inputs), stored.document
    with on_device([teacher.towers for teacher in teachers], device), exact():
        live = teachers_forward(teachers, prepare(batch).teachers)
    targets = StoredTargets(document.teachers, None, device).embeddings(batch)
    least = LEAST_COSINE_BF16 if document.precision != "fp32" else LEAST_COSINE[document.dtype]
    cosines: list[float] = []
    for teacher, one, other in zip(document.teachers, live, targets, strict=False):
        for kind, live_BE, stored_BE in (("images", one.image_BE, other.image_BE), ("texts", one.text_BE, other.text_BE)):
            cosines.append(float((live_BE * stored_BE).sum(dim=1).min()))
            if not cosines[-1] >= least:
                raise reinforcement_error(
                    document.id,
                    f"has other embeddings of {kind} than {teacher.name} computes: the cosine is {cosines[-1]:.5f} for one of "
                    f"{len(stored_BE)} pairs, at least {least} is expected; make it again, or omit data.train.reinforcement",
                )
    log.info("reinforcement %s: %d pairs were verified, the least cosine is %.6f", document.id, len(live_BE), min(cosines))
    return min(cosines)


def _some_pairs(
    stored: StoredReinforcement, spec: JobSpec, index: DatasetIndex, student: LoadedModel, teacher_inputs: TeacherInputs
) -> Batch:
    """Return a few pairs as in training. Raises DataError."""
    count = min(VERIFIED_PAIRS, index.pairs)
    stream = PairStream(
        spec.data,
        index,
        batch_size=count,
        image_size=student.layout.image_size,
        tokenize=SingleTextTokenizer(student.tokenizer),
        seed=spec.seed + VERIFICATION_STREAM,
        readers=reader_count(count, most=VERIFICATION_READERS),
        stored=stored,
        trims=trims_padding(student.model),
        teacher_inputs=teacher_inputs,
    )
    return next(iter(BatchLoader(stream, 0)))
