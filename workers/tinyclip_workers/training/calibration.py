"""Pairs of the training data by which a student is cut out of its parent: drawn once, the same on every worker."""

import logging
from collections.abc import Callable, Sequence

import torch
from tinyclip.schemas import JobSpec

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.order import reader_count
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.inheritance.streams import PART, Pairs
from tinyclip_workers.inheritance.students import Calibration, embedding_targets
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.towers import Model, trims_padding
from tinyclip_workers.model.transfer import on_device
from tinyclip_workers.training.stage import Parent
from tinyclip_workers.training.teachers.inputs import InputPreparation, ModelInput, Reading

log = logging.getLogger(__name__)

CALIBRATION_PAIRS = 512
"""Pairs of a calibration. Twice as many change the student's start by less than another draw of the same number does."""
CALIBRATION_STREAM = 1_000_003
"""Added to the spec's seed: the order of calibration pairs is independent of that of training."""
CALIBRATION_READERS = 8
"""Readers of calibration pairs: few, since each of them reads whole blocks."""


def calibration_of(
    spec: JobSpec,
    index: DatasetIndex,
    stage: int,
    student: LoadedModel,
    parent: Parent,
    original: LoadedModel | None,
) -> Callable[[], Calibration]:
    """Return a function that draws a stage's calibration pairs, on the parent's device. It raises DataError.

    Their targets are the teacher's embeddings, or the parent's if these have another size.
    """
    if original is not None and original.layout.embed_dim == parent.layout.embed_dim:
        return teacher_calibration(spec, index, stage, student, original, parent.device)
    return lambda: draw_calibration(spec, index, stage, student, parent.model(), parent.device)


def teacher_calibration(
    spec: JobSpec, index: DatasetIndex, stage: int, student: LoadedModel, original: LoadedModel, device: torch.device
) -> Callable[[], Calibration]:
    """Return a function that draws a stage's calibration pairs with the teacher's embeddings. It raises DataError."""

    def draw() -> Calibration:
        target = original.model.eval()
        with on_device([target], device):
            return draw_calibration(spec, index, stage, student, target, device, teacher=original)

    return draw


def draw_calibration(
    spec: JobSpec,
    index: DatasetIndex,
    stage: int,
    student: LoadedModel,
    target: Model,
    device: torch.device,
    pairs: int = CALIBRATION_PAIRS,
    teacher: LoadedModel | None = None,
) -> Calibration:
    """Draw training pairs of a stage, augmented and normalised as in training, and compute their targets with a model.

    `student` has the preprocessing; `teacher` is the model of the targets, if it reads pairs in another form. The pairs depend on
    spec and stage only, not on the number of workers. All captions are in the teacher's language, if it has one: the parent's
    function of the others means nothing. Raises DataError.
    """
    language = spec.first_teacher.language if spec.first_teacher is not None and teacher is not None else None
    readings = [] if teacher is None else [Reading.of(teacher, student, language)]
    prepare = InputPreparation((student.image_mean, student.image_std), readings, spec.data.train.augment, torch.device("cpu"))
    part = min(PART, spec.stages[stage].batch_size or spec.batch_size)
    seed = spec.seed + CALIBRATION_STREAM + stage
    stream = PairStream(
        spec.data,
        index,
        batch_size=part,
        image_size=student.layout.image_size,
        tokenize=SingleTextTokenizer(student.tokenizer),
        seed=seed,
        readers=reader_count(part, most=CALIBRATION_READERS),
        trims=trims_padding(student.model),
        teacher_inputs=prepare.teacher_inputs,
        language=language,
    )
    # In this order of `zip` no further batch is read.
    drawn = [prepare(batch) for _, batch in zip(range(-(-pairs // part)), BatchLoader(stream, 0), strict=False)]
    own = _joined([each.student for each in drawn], pairs, device)
    theirs = _joined([each.teachers[0] for each in drawn], pairs, device) if readings else own
    log.info("cutting the student by %d calibration pairs", len(own.tokens_NT))
    trims = trims_padding(target)
    return Calibration(own, embedding_targets(target, theirs, student.layout.embed_dim, trims=trims), theirs)


def _joined(parts: Sequence[ModelInput], pairs: int, device: torch.device) -> Pairs:
    longest = max(part.tokens_BT.shape[1] for part in parts)
    padded = [torch.nn.functional.pad(part.tokens_BT, (0, longest - part.tokens_BT.shape[1])) for part in parts]
    return Pairs(torch.cat([part.images_BCHW for part in parts])[:pairs].to(device), torch.cat(padded)[:pairs].to(device))
