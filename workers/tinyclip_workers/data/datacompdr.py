"""The published layout of reinforced data sets (DataCompDR, apple/ml-mobileclip), as files of a sample in a shard.

    KEY.syn.json   {"syn_text": [synthetic captions]}
    KEY.paug.json  {"param_aug": [views]}, or the list as a text; a view is [[top, left, height, width], operations], and
                   operations are [[number, magnitude], …] of torchvision's RandAugment, or null
    KEY.npz        image_emb (views, E), text_emb (captions and then synthetic captions, E)
    KEY.pth.gz     the same as tensors of bf16, gzipped

E is the sum of the teachers' embedding sizes: their embeddings, each of length 1, lie side by side. Files come from anybody: each
is read within limits of size, and nothing in it is executed.

K views, M texts.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.samples import MAX_TEXT_CHARACTERS, Sample, UnusableSample, small_file

SYNTHETIC, VIEWS, ARRAYS, TENSORS = "syn.json", "paug.json", "npz", "pth.gz"
"""Extensions of the files."""
MAX_VIEWS, MAX_TEXTS = 1000, 1000

OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
"""By their number in the published layout."""

Operation = tuple[int, float]
"""Number and magnitude."""


@dataclass(frozen=True)
class PublishedView:
    """A crop of the image as it is stored, and the operations after it."""

    crop: Crop
    operations: tuple[Operation, ...]


def synthetic_captions(sample: Sample) -> list[str]:
    """Return the synthetic captions of a sample, stripped; none if it has no such file. Raises any exception."""
    if SYNTHETIC not in sample and SYNTHETIC not in sample.get("__defects__", ()):
        return []
    texts = _document(sample, SYNTHETIC).get("syn_text")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_TEXTS:
        raise UnusableSample(f"syn_text in its {SYNTHETIC} is not a list of at most {MAX_TEXTS} texts")
    return [text[:MAX_TEXT_CHARACTERS].strip() for text in texts]


def published_views(sample: Sample) -> list[PublishedView]:
    """Return the views of a sample (K). Raises UnusableSample naming what is not supported, or any exception."""
    views = _document(sample, VIEWS).get("param_aug")
    views = json.loads(views) if isinstance(views, str) else views
    if not isinstance(views, list) or not 1 <= len(views) <= MAX_VIEWS:
        raise UnusableSample(f"param_aug in its {VIEWS} is not a list of 1 to {MAX_VIEWS} views")
    return [_view(view) for view in views]


def _document(sample: Sample, extension: str) -> dict[str, Any]:
    document = json.loads(small_file(sample, extension))
    if not isinstance(document, dict):
        raise UnusableSample(f"its {extension} is not an object")
    return document


def _view(view: Any) -> PublishedView:
    if not isinstance(view, list) or len(view) != 2 or not isinstance(view[0], list) or len(view[0]) != 4:
        raise UnusableSample("a view in param_aug is not a crop and operations; other transforms than these are not supported")
    top, left, height, width = (int(number) for number in view[0])
    return PublishedView(Crop(left, top, width, height), tuple(_operation(each) for each in view[1] or ()))


def _operation(operation: Any) -> Operation:
    number, magnitude = operation
    if not isinstance(number, int) or not 0 <= number < len(OPERATIONS):
        raise UnusableSample(f"operation {number!r} in param_aug is none of RandAugment's {len(OPERATIONS)}")
    if not math.isfinite(magnitude):
        raise UnusableSample(f"the magnitude of {OPERATIONS[number]} in param_aug is not a finite number")
    return number, float(magnitude)
