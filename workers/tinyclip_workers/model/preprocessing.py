"""The colour normalization of a model's image input."""

import torch
from torch import Tensor

from tinyclip_workers.model.transfer import constants

Color = tuple[float, float, float]
"""One number per RGB channel."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(images_BCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Convert uint8 or 0..1 float pixels to the towers' input, fp32."""
    pixels = images_BCHW.float() / 255 if images_BCHW.dtype == torch.uint8 else images_BCHW
    shape = (1, 3, 1, 1)
    return (pixels - constants(mean, pixels).view(shape)) / constants(std, pixels).view(shape)
