"""Images and texts to check an export with and to calibrate int8 with.

They come from the first readable source of: the version's evaluation tasks, its training data, its stored calibration images,
and synthetic images, which are always the same.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from PIL import Image, ImageDraw
from tinyclip.schemas.spec import EvaluationTask, RetrievalTask, TrainData, ZeroShotTask
from torch import Tensor

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.eval_transform import eval_transform
from tinyclip_workers.data.images import decode_image
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, captions_of, image_bytes, is_held_out
from tinyclip_workers.data.shards import BROKEN_SHARD, read_shards
from tinyclip_workers.evaluation.by_language import split_by_language
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.labels import class_names, fill_template, is_selected, prompt_templates, retrieval_captions

log = logging.getLogger(__name__)

CHECKED, CALIBRATION = 64, 256
"""Images to check with and further images to calibrate with; fewer if the source has fewer."""
TEXTS = 256
MAX_SHARDS = 8
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "grey", "white")
THINGS = ("dog", "bicycle on a wet street", "bowl of soup", "laughing face", "tree in winter", "sign", "flag", "ship")
SIDES = ((320, 240), (240, 320), (256, 256), (400, 200))


@dataclass(frozen=True)
class Samples:
    """Images and texts, and a description of their source."""

    source: str
    checked: list[Image.Image]
    calibration: list[Image.Image]
    """Disjoint from `checked`, unless there is only one image."""
    texts: list[str]


def gather_samples(
    tasks: Sequence[EvaluationTask], train: TrainData | None, calibration: Sequence[Image.Image] = ()
) -> Samples:
    """Return samples of the first readable source that has images.

    `calibration` are the version's stored calibration images. Evaluation images are used for calibration only without any others.
    """
    trained = _try_source("training data", _training_pairs(train), None) if train is not None else None
    holdout = train.holdout if train is not None else 0.0
    for task in tasks:
        found = _try_source(f"evaluation task {task.name}", _task_pairs(task, holdout), _task_texts(task))
        if found is not None:
            others = [*trained.calibration, *trained.checked] if trained is not None else [*calibration]
            return replace(found, calibration=others[:CALIBRATION] or found.calibration)
    if trained is not None:
        return trained
    if calibration:
        return _samples("the version's calibration images", [(image, None) for image in calibration])
    return synthetic_samples()


def synthetic_samples() -> Samples:
    """Return different images of shapes on soft colors, with captions."""
    captions = islice(_synthetic_captions(), CHECKED + CALIBRATION)
    pairs = [(_draw(number), caption) for number, caption in enumerate(captions)]
    return _samples("synthetic images: no evaluation task or training data of this version could be read", pairs)


def to_pixels(images: Sequence[Image.Image], size: int) -> Tensor:
    """Preprocess images as evaluation does: uint8 (B, 3, size, size)."""
    transform = eval_transform(size)
    return torch.stack([transform(image) for image in images])


Pairs = Iterator[tuple[Image.Image, str | None]]


def _try_source(source: str, pairs: Pairs, texts: list[str] | None) -> Samples | None:
    try:
        found = list(islice(pairs, CHECKED + CALIBRATION))
    except (*BROKEN_SHARD, ValueError, KeyError) as error:
        log.warning("cannot read %s to check the export with: %s", source, error)
        return None
    return _samples(source, found, texts) if found else None


def _samples(source: str, pairs: Sequence[tuple[Image.Image, str | None]], texts: list[str] | None = None) -> Samples:
    images = [image for image, _ in pairs]
    checked = CHECKED if len(images) == CHECKED + CALIBRATION else max(1, len(images) // 5)
    captions = list(dict.fromkeys(texts or [text for _, text in pairs if text]))
    chosen = (captions or list(islice(_synthetic_captions(), TEXTS)))[:TEXTS]
    return Samples(source, images[-checked:], images[:-checked] or images, chosen)


def _task_pairs(task: EvaluationTask, holdout: float) -> Pairs:
    task = resolve_task(task)

    def caption(sample: Sample) -> str | None:
        return retrieval_captions(sample, task.caption_key)[0] if isinstance(task, RetrievalTask) else None

    samples = _sample_shards(expand_shards(task.shards))
    yield from _decode(samples, task.image_key, lambda sample: is_selected(sample, task, holdout), caption)


def _training_pairs(train: TrainData) -> Pairs:
    yield from _decode(
        _sample_shards(expand_shards(train.patterns)), train.image_key,
        lambda sample: not is_held_out(sample["__key__"], train.holdout),
        lambda sample: captions_of(sample, train.caption_key)[0],
    )  # fmt: skip


def _sample_shards(urls: Sequence[str]) -> Iterator[Sample]:
    """Yield the first samples of several shards: one shard may hold only one kind of image. Raises DataError if all fail."""
    chosen = urls[:: -(-len(urls) // MAX_SHARDS)] if urls else []
    share = -(-(CHECKED + CALIBRATION) // max(1, len(chosen)))
    skipped = Skipped()
    for url in chosen:
        try:
            yield from islice(read_shards([url], skipped), share)
        except DataError:
            continue
    if chosen and skipped.shards == len(chosen):
        raise DataError(f"none of {len(chosen)} shards can be read, the first is {chosen[0]}", value=chosen[0])


def _decode(
    samples: Iterator[Sample],
    image_keys: Sequence[str],
    is_chosen: Callable[[Sample], bool],
    caption_of: Callable[[Sample], str | None],
) -> Pairs:
    """Yield image and caption of the chosen samples that have both."""
    skipped = Skipped()
    for sample in samples:
        pair: tuple[Image.Image, str | None] | None = None
        with skipped.unusable(sample):
            if is_chosen(sample):
                pair = decode_image(image_bytes(sample, image_keys)), caption_of(sample)
        if pair is not None:
            yield pair


def _task_texts(task: EvaluationTask) -> list[str] | None:
    """Return the prompts of a zero-shot task; None for tasks whose samples have captions."""
    try:
        task = resolve_task(next(split_by_language([task])))
        if not isinstance(task, ZeroShotTask) or task.classes is None or task.templates is None:
            return None
        classes = class_names(task)
        prompts = (fill_template(template, name) for template in prompt_templates(task) for name in classes)
        return list(islice(prompts, TEXTS))
    except (OSError, ValueError) as error:
        log.warning("cannot read the prompts of task %s: %s", task.name, error)
        return None


def _synthetic_captions() -> Iterator[str]:
    for number in count():
        thing, color = THINGS[number % len(THINGS)], COLORS[number // len(THINGS) % len(COLORS)]
        yield f"a {color} {thing}" if number < 64 else f"picture {number}: a {color} {thing}, drawn"


def _draw(number: int) -> Image.Image:
    rng, side = np.random.default_rng(number), SIDES[number % len(SIDES)]
    coarse = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse)[: int(rng.integers(1, 4))]:
        left, top = rng.uniform(0, 0.7, 2) * side
        width, height = rng.uniform(0.1, 0.5, 2) * side
        shape((left, top, left + width, top + height), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image
