"""What an export is checked and calibrated on: real pictures and texts where they can be read, drawn ones else.

In this order: what the version was evaluated on, what it was trained on, the calibration pictures that it keeps, pictures that
are drawn here, the same every time.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from PIL import Image, ImageDraw
from tinyclip.schemas.spec import EvaluationTask, RetrievalTask, TrainData, ZeroShotTask
from torch import Tensor

from tinyclip_workers.data.images import decode_image, eval_transform
from tinyclip_workers.data.shards import (
    BROKEN_SHARD,
    DataError,
    Sample,
    Skipped,
    captions_of,
    expand_shards,
    image_bytes,
    is_held_out,
    read_shards,
)
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.tasks import fill_template, is_selected, retrieval_captions, task_lines

log = logging.getLogger(__name__)

CHECKED, CALIBRATION = 64, 256
"""Pictures to check on and, apart from them, to calibrate int8 on; fewer where there are not so many."""
TEXTS = 256
MOST_SHARDS = 8
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "grey", "white")
THINGS = ("dog", "bicycle on a wet street", "bowl of soup", "laughing face", "tree in winter", "sign", "flag", "ship")
SIDES = ((320, 240), (240, 320), (256, 256), (400, 200))


@dataclass(frozen=True)
class Samples:
    """Pictures and texts, and a word on where they come from."""

    source: str
    checked: list[Image.Image]
    calibration: list[Image.Image]
    """None of those that are checked on, unless there is but one picture."""
    texts: list[str]


def gather(tasks: Sequence[EvaluationTask], train: TrainData | None, kept: Sequence[Image.Image] = ()) -> Samples:
    """The first of the sources that gives pictures; those that cannot be read are passed over.

    `kept` are the version's own calibration pictures. What is evaluated on is not calibrated on where there is anything else.
    """
    trained = _tried("training data", _of_training(train), None) if train is not None else None
    holdout = train.holdout if train is not None else 0.0
    for task in tasks:
        if (found := _tried(f"evaluation task {task.name}", _of_task(task, holdout), _texts_of(task))) is not None:
            others = [*trained.calibration, *trained.checked] if trained is not None else [*kept]
            return replace(found, calibration=others[:CALIBRATION] or found.calibration)
    if trained is not None:
        return trained
    return _samples("the version's calibration pictures", [(picture, None) for picture in kept]) if kept else drawn()


def drawn(count: int = CHECKED + CALIBRATION) -> Samples:
    """Pictures of soft colours with shapes on them, and captions; no two alike."""
    pairs = [(_draw(number), text) for number, text in zip(range(count), _captions(), strict=False)]
    return _samples("drawn pictures: no evaluation task or training data of this version could be read", pairs)


def pixels(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """Pictures as evaluation sees them: uint8 (B, 3, size, size)."""
    transform = eval_transform(size)
    return torch.stack([transform(picture) for picture in pictures])


Pairs = Iterator[tuple[Image.Image, str | None]]


def _tried(source: str, pairs: Pairs, texts: list[str] | None) -> Samples | None:
    try:
        found = list(islice(pairs, CHECKED + CALIBRATION))
    except (*BROKEN_SHARD, ValueError, KeyError) as error:
        log.warning("%s cannot be read to check the export on: %s", source, error)
        return None
    return _samples(source, found, texts) if found else None


def _samples(source: str, pairs: Sequence[tuple[Image.Image, str | None]], texts: list[str] | None = None) -> Samples:
    pictures = [picture for picture, _ in pairs]
    check = CHECKED if len(pictures) == CHECKED + CALIBRATION else max(1, len(pictures) // 5)
    captions = list(dict.fromkeys(texts or [text for _, text in pairs if text]))
    some = (captions or list(islice(_captions(), TEXTS)))[:TEXTS]
    return Samples(source, pictures[-check:], pictures[:-check] or pictures, some)


def _of_task(task: EvaluationTask, holdout: float) -> Pairs:
    task = resolve_task(task)
    for sample in _spread(expand_shards(task.shards)):
        if is_selected(sample, task, holdout):
            captions = retrieval_captions(sample, task.caption_key) if isinstance(task, RetrievalTask) else [None]
            yield from _decoded(sample, task.image_key, captions[0])


def _of_training(train: TrainData) -> Pairs:
    for sample in _spread(expand_shards(train.shards)):
        if not is_held_out(sample["__key__"], train.holdout):
            yield from _decoded(sample, train.image_key, captions_of(sample, train.caption_key)[0])


def _spread(urls: Sequence[str]) -> Iterator[Sample]:
    """The beginnings of a few shards: one alone may hold one kind of picture. Raises DataError if none can be read."""
    chosen = urls[:: -(-len(urls) // MOST_SHARDS)] if urls else []
    share = -(-(CHECKED + CALIBRATION) // max(1, len(chosen)))
    skipped = Skipped()
    for url in chosen:
        try:
            yield from islice(read_shards([url], skipped), share)
        except DataError:
            continue
    if chosen and skipped.shards == len(chosen):
        raise DataError(f"none of {len(chosen)} shards can be read, the first is {chosen[0]}", value=chosen[0])


def _decoded(sample: Sample, image_keys: Sequence[str], caption: str | None) -> Pairs:
    """The pair, or nothing if its picture is none."""
    try:
        yield decode_image(image_bytes(sample, image_keys)), caption
    except (KeyError, ValueError) as error:
        log.info("sample %s: %s", sample["__key__"], error)


def _texts_of(task: EvaluationTask) -> list[str] | None:
    """The prompts of a zero-shot task; of others, what their samples say."""
    try:
        task = resolve_task(task)
        if not isinstance(task, ZeroShotTask) or task.classes is None or task.templates is None:
            return None
        return [fill_template(template, name) for template in task_lines(task.templates) for name in task_lines(task.classes)]
    except (OSError, ValueError) as error:
        log.warning("the prompts of task %s cannot be read: %s", task.name, error)
        return None


def _captions() -> Iterator[str]:
    number = 0
    while True:
        thing, colour = THINGS[number % len(THINGS)], COLOURS[number // len(THINGS) % len(COLOURS)]
        yield f"a {colour} {thing}" if number < 64 else f"picture {number}: a {colour} {thing}, drawn"
        number += 1


def _draw(number: int) -> Image.Image:
    rng, side = np.random.default_rng(number), SIDES[number % len(SIDES)]
    coarse = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse)[: int(rng.integers(1, 4))]:
        left, top = rng.uniform(0, 0.7, 2) * side
        width, height = rng.uniform(0.1, 0.5, 2) * side
        shape((left, top, left + width, top + height), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return picture
