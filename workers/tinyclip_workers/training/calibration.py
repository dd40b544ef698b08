"""Pairs of the training data by which a student is cut out of its parent: drawn once, the same on every worker."""

import logging
from collections.abc import Callable

import torch
from tinyclip.schemas import JobSpec

from tinyclip_workers.data.augment import augment
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.order import reader_count
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.inheritance.streams import PART, Pairs
from tinyclip_workers.inheritance.students import Calibration, embedding_targets
from tinyclip_workers.model.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import Model
from tinyclip_workers.model.transfer import on_device
from tinyclip_workers.training.stage import Parent

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
    like_teacher = original is not None and original.layout.embed_dim == parent.layout.embed_dim

    def draw() -> Calibration:
        target = original.model.eval() if original is not None and like_teacher else parent.model()
        with on_device([target], parent.device):
            return draw_calibration(spec, index, stage, student, target, parent.device)

    return draw


def draw_calibration(
    spec: JobSpec,
    index: DatasetIndex,
    stage: int,
    student: LoadedModel,
    target: Model,
    device: torch.device,
    pairs: int = CALIBRATION_PAIRS,
) -> Calibration:
    """Draw training pairs of a stage, augmented and normalised as in training, and compute their targets with a model.

    `student` has the preprocessing. The pairs depend on spec and stage only, not on the number of workers. Raises DataError.
    """
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
    )
    images, tokens = [], []
    for _, batch in zip(range(-(-pairs // part)), BatchLoader(stream, 0), strict=False):  # in this order no further batch is read
        augmented = augment(batch.images_BCHW, spec.data.train.augment, batch.views_BP)
        images.append(normalize(augmented, student.image_mean, student.image_std))
        tokens.append(batch.tokens_BT)
    longest = max(part_tokens.shape[1] for part_tokens in tokens)
    padded = [torch.nn.functional.pad(part_tokens, (0, longest - part_tokens.shape[1])) for part_tokens in tokens]
    drawn = Pairs(torch.cat(images)[:pairs].to(device), torch.cat(padded)[:pairs].to(device))
    log.info("cutting the student by %d calibration pairs", len(drawn.tokens_NT))
    return Calibration(drawn, embedding_targets(target, drawn, student.layout.embed_dim))
