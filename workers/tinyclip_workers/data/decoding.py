"""Bytes of a picture to the square that a student sees: the evaluation transform, by the fastest way.

A JPEG is decoded at the smallest of libjpeg's scales that is at least twice the square, so that a photo of many megapixels costs
what a small one does; any other format goes through PIL. What comes out is what `images.decode_image` and `images.eval_transform`
give, within 2 of 255; a JPEG that was scaled while decoding within 6, and within 1 on average.
"""

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from tinyclip_workers.data.images import is_ribbon, open_image, orientation, ribbon_centre, to_rgb, unreadable
from tinyclip_workers.types import Pixels

_NUDGE = 1e-7
"""Products of sides and scales that should be whole numbers may come out just below."""
_OVERSIZE = 2
"""A JPEG is decoded to at least this many times the square."""


def decode_square(data: bytes, size: int) -> Pixels:
    """Any picture as (size, size, 3): short side resized, centre cropped. Raises UnreadableImage as `decode_image` does."""
    with unreadable():
        file = open_image(data)
        jpeg = _scaled_jpeg(data, file, size)
        if jpeg is None:
            return square(np.array(to_rgb(file)), size)
        pixels_HWC, scale = jpeg
        return _square(pixels_HWC, size, (file.height * scale, file.width * scale), orientation(file))


def square(pixels_HWC: Pixels, size: int) -> Pixels:
    """The evaluation transform of RGB pixels, as (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if is_ribbon((width, height)):
        return np.asarray(ribbon_centre(Image.fromarray(pixels_HWC), size))
    return _square(pixels_HWC, size, (height, width), None)


def _square(pixels_HWC: Pixels, size: int, sides: tuple[float, float], turn: Image.Transpose | None) -> Pixels:
    """`sides` are the picture's in these pixels; of a scaled one they may end within the last."""
    short = min(sides)
    high, wide = (int(size * side / short + _NUDGE) for side in sides)
    if (high, wide) != sides:
        scales = [goal / side + _NUDGE for goal, side in zip((high, wide), sides, strict=True)]
        pixels_1CHW = torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None]
        resized = F.interpolate(pixels_1CHW, scale_factor=scales, mode="bicubic", antialias=True)
        pixels_HWC = resized[0, :, :high, :wide].permute(1, 2, 0).numpy()
    if turn is not None:
        pixels_HWC = np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).transpose(turn))
    top, left = (round((side - size) / 2) for side in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + size, left : left + size])


def _scaled_jpeg(data: bytes, file: Image.Image, size: int) -> tuple[Pixels, float] | None:
    """A colour or grey JPEG, not turned yet, and the scale that libjpeg has chosen, in eighths; it rounds sides up.

    None for anything else, and for what only PIL reads or can say what is wrong with.
    """
    if file.format not in ("JPEG", "MPO") or file.mode not in ("RGB", "L") or is_ribbon(file.size):
        return None
    least = _OVERSIZE * size
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least)
    except ValueError:
        return None
    height, width = pixels.shape[:2]
    scales = (n / 8 for n in range(1, 9) if (-(-file.height * n // 8), -(-file.width * n // 8)) == (height, width))
    return next(((pixels, scale) for scale in scales), None)
