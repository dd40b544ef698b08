"""The training crop: the part of an image that a student sees, as a value that is drawn, stored and replayed."""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

CROP_DRAWS, CROP_RATIOS = 10, (3 / 4, 4 / 3)
"""Draws of a training crop before the central one is used, and the range of its aspect ratio (width to height)."""
_Turn = Image.Transpose
_SWAPS_SIDES = (_Turn.TRANSPOSE, _Turn.ROTATE_270, _Turn.TRANSVERSE, _Turn.ROTATE_90)
_MIRRORS_COLUMNS = (_Turn.FLIP_LEFT_RIGHT, _Turn.ROTATE_180, _Turn.ROTATE_90, _Turn.TRANSVERSE)
_MIRRORS_ROWS = (_Turn.FLIP_TOP_BOTTOM, _Turn.ROTATE_180, _Turn.ROTATE_270, _Turn.TRANSVERSE)


class Crop(NamedTuple):
    """A box in the pixels of the upright image of full size."""

    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, as PIL takes it."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def check_fits(self, width: int, height: int) -> None:
        """Raise ValueError if the crop is empty or reaches beyond an image of that size."""
        left, top, right, bottom = self.box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"the crop {tuple(self)} does not fit into the image of {width}x{height} pixels; draw it again")

    def before(self, turn: Image.Transpose | None, width: int, height: int) -> "Crop":
        """Return the box in the stored image, of that width and height, which `turn` brings upright."""
        left, top, wide, high = self if turn not in _SWAPS_SIDES else (self.top, self.left, self.height, self.width)
        left = width - left - wide if turn in _MIRRORS_COLUMNS else left
        top = height - top - high if turn in _MIRRORS_ROWS else top
        return Crop(left, top, wide, high)


def upright_size(width: int, height: int, turn: Image.Transpose | None) -> tuple[int, int]:
    """Return width and height of a stored image after `turn` brought it upright."""
    return (height, width) if turn in _SWAPS_SIDES else (width, height)


def random_crop(width: int, height: int, scale: tuple[float, float], rng: np.random.Generator) -> Crop:
    """Return a random crop with a share `scale` of the area, as torchvision's `RandomResizedCrop` draws it.

    Of ten draws of area and aspect ratio (uniform in its logarithm) the first that fits into the image is used. If none fits,
    as in an elongated image, it is the largest central crop of the nearest aspect ratio allowed.
    """
    narrowest, widest = CROP_RATIOS
    (least, most), (lowest, highest) = scale, (math.log(narrowest), math.log(widest))
    pixels = width * height
    for _ in range(CROP_DRAWS):  # `random` draws as `uniform` does, in a third of the time
        area = pixels * (least + (most - least) * rng.random())
        ratio = math.exp(lowest + (highest - lowest) * rng.random())
        crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            top, left = rng.integers(height - crop_h + 1), rng.integers(width - crop_w + 1)
            return Crop(int(left), int(top), crop_w, crop_h)
    crop_w, crop_h = min(width, round(height * widest)), min(height, round(width / narrowest))
    return Crop((width - crop_w) // 2, (height - crop_h) // 2, crop_w, crop_h)
