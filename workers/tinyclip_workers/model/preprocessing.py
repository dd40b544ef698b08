"""The image input of a model: its square of pixels, and their colour normalization."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from tinyclip_workers.model.transfer import constants

Color = tuple[float, float, float]
"""One number per RGB channel."""

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash", "longest"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)


class PixelInput(NamedTuple):
    """The square of pixels that a model reads, and how an image becomes one. Filters are antialiased."""

    size: int
    """Of a side."""
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    """Of a whole image, in evaluation: its short side is resized and the centre cropped; both sides are resized, whatever their
    ratio; or its long side is resized and the rest is black. A training crop is always resized to the square."""


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(images_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Convert uint8 or 0..1 float pixels to the towers' input, fp32."""
    pixels = images_BCHW.float() / 255 if images_BCHW.dtype == torch.uint8 else images_BCHW
    shape = (1, 3, 1, 1)
    return (pixels - constants(mean, pixels).view(shape)) / constants(std, pixels).view(shape)
