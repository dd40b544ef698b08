"""The operations of torchvision's RandAugment on a cropped image, replayed as DataCompDR has applied them.

They are computed on the CPU by torchvision's functions on PIL images, nearest neighbours, outside black: the pixels are those of
`torchvision.transforms.RandAugment` with its defaults.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from tinyclip_workers.data.datacompdr import OPERATIONS, Operation
from tinyclip_workers.types import Pixels

_Image = Image.Image


def apply_operations(pixels_HWC: Pixels, operations: Sequence[Operation]) -> Pixels:
    """Apply operations in their order; returns pixels (H, W, C)."""
    image = Image.fromarray(np.ascontiguousarray(pixels_HWC))
    for number, magnitude in operations:
        image = _APPLY[OPERATIONS[number]](image, magnitude)
    return np.asarray(image)


def _affine(image: _Image, shift: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> _Image:
    # A shear is about the upper left corner, as RandAugment has it.
    center = [0, 0] if any(shear) else None
    moved: _Image = F.affine(image, 0.0, list(shift), 1.0, list(shear), InterpolationMode.NEAREST, None, center)
    return moved


def _shear(image: _Image, magnitude: float, *, axis: int) -> _Image:
    angle = math.degrees(math.atan(magnitude))
    return _affine(image, shear=(angle, 0.0) if axis == 0 else (0.0, angle))


_APPLY: dict[str, Callable[[_Image, float], _Image]] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, magnitude: _shear(image, magnitude, axis=0),
    "ShearY": lambda image, magnitude: _shear(image, magnitude, axis=1),
    "TranslateX": lambda image, magnitude: _affine(image, shift=(int(magnitude), 0)),
    "TranslateY": lambda image, magnitude: _affine(image, shift=(0, int(magnitude))),
    "Rotate": lambda image, magnitude: F.rotate(image, magnitude, InterpolationMode.NEAREST, fill=None),
    "Brightness": lambda image, magnitude: F.adjust_brightness(image, 1.0 + magnitude),
    "Color": lambda image, magnitude: F.adjust_saturation(image, 1.0 + magnitude),
    "Contrast": lambda image, magnitude: F.adjust_contrast(image, 1.0 + magnitude),
    "Sharpness": lambda image, magnitude: F.adjust_sharpness(image, 1.0 + magnitude),
    "Posterize": lambda image, magnitude: F.posterize(image, int(magnitude)),
    "Solarize": lambda image, magnitude: F.solarize(image, magnitude),
    "AutoContrast": lambda image, _: F.autocontrast(image),
    "Equalize": lambda image, _: F.equalize(image),
}
