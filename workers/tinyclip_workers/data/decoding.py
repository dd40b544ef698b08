"""The evaluation transform by the fastest way: from an encoded image to the square of pixels that a student takes.

A JPEG is decoded at the smallest of libjpeg's scales that is at least twice the square, so that a photo of many megapixels costs
as little as a small one; PIL decodes any other format. Pixels differ from those of `images.decode_image` and
`images.eval_transform` by at most 2 of 255; those of a JPEG that was scaled while decoding by at most 6, and by 1 on average.
"""

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from tinyclip_workers.data.images import crop_elongated, decoder_errors, is_elongated, open_image, to_rgb, upright_transpose
from tinyclip_workers.types import Pixels

_EPSILON = 1e-7
"""Rounding may put products of sides and scales that should be whole numbers just below them."""
_JPEG_OVERSAMPLING = 2
"""A JPEG is decoded to at least this many times the square."""


def decode_square(data: bytes, size: int) -> Pixels:
    """Decode any image to (size, size, 3): short side resized, centre cropped. Raises UnreadableImage as `decode_image`."""
    with decoder_errors():
        file = open_image(data)
        jpeg = _scaled_jpeg(data, file, size)
        if jpeg is None:
            return square(np.array(to_rgb(file)), size)
        pixels_HWC, scale = jpeg
        return _square(pixels_HWC, size, (file.height * scale, file.width * scale), upright_transpose(file))


def square(pixels_HWC: Pixels, size: int) -> Pixels:
    """Apply the evaluation transform to RGB pixels: (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if is_elongated((width, height)):
        return np.asarray(crop_elongated(Image.fromarray(pixels_HWC), size))
    return _square(pixels_HWC, size, (height, width), None)


def _square(pixels_HWC: Pixels, size: int, sides: tuple[float, float], turn: Image.Transpose | None) -> Pixels:
    """`sides`: height and width of the image in these pixels; those of a scaled one may be fractions."""
    short = min(sides)
    high, wide = (int(size * side / short + _EPSILON) for side in sides)
    if (high, wide) != sides:
        scales = [goal / side + _EPSILON for goal, side in zip((high, wide), sides, strict=True)]
        pixels_1CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels_1CHW, scale_factor=scales, mode="bicubic", antialias=True)
        pixels_HWC = resized[0, :, :high, :wide].permute(1, 2, 0).numpy()
    if turn is not None:
        pixels_HWC = np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).transpose(turn))
    top, left = (round((side - size) / 2) for side in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + size, left : left + size])


def _scaled_jpeg(data: bytes, file: Image.Image, size: int) -> tuple[Pixels, float] | None:
    """Decode a colour or grey JPEG, not rotated yet. Return its pixels and the scale that libjpeg chose; it rounds sides up.

    Returns None for other formats, and for files that simplejpeg refuses: PIL reads some, and reports what is wrong with others.
    """
    if file.format not in ("JPEG", "MPO") or file.mode not in ("RGB", "L") or is_elongated(file.size):
        return None
    min_side = _JPEG_OVERSAMPLING * size
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=min_side, min_width=min_side)
    except ValueError:
        return None
    height, width = pixels.shape[:2]
    scales = (n / 8 for n in range(1, 9) if (-(-file.height * n // 8), -(-file.width * n // 8)) == (height, width))
    return next(((pixels, scale) for scale in scales), None)
