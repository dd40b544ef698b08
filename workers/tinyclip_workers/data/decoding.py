"""From an encoded image to the square of pixels that a model takes, by the fastest way: for evaluation and for training.

A JPEG is decoded at the smallest of libjpeg's fast scales that is large enough, so that a photo of many megapixels costs as
little as a small one; PIL decodes any other format. The slow way is the reference, and pixels differ from its by at most 2 of
255, unless a JPEG is reduced:

- `decode_square` is `eval_transform` of `decode_image`. A JPEG that was scaled while decoding differs by at most 6, and by 1 on
  average.
- `decode_crop` is a part of the image, cropped and then resized, as by torchvision's `RandomResizedCrop`. A JPEG that is reduced
  by CROP_OVERSAMPLING or more differs by 1 on average; by more where colours meet, which are upsampled by the fast method.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from tinyclip_workers.data import images
from tinyclip_workers.data.crops import Crop, upright_size
from tinyclip_workers.data.images import crop_elongated, decoder_errors, is_elongated, open_image, to_rgb, upright_transpose
from tinyclip_workers.model.preprocessing import Interpolation, PixelInput
from tinyclip_workers.types import Pixels

EVAL_OVERSAMPLING, CROP_OVERSAMPLING = 2, 1.5
"""A JPEG is decoded to at least this many times the square. Of photos decoded at a half, to 1, 1.25, 1.5 and 2 times the square,
pixels differ by 2.1, 1.4, 0.95 and 0.6 of 255 on average, and the 99.9th percentile by 22, 12, 8 and 4."""
FAST_SCALES = (1, 2, 4)
"""Eighths at which libjpeg-turbo decodes with SIMD: at 3, 5, 6 and 7 it takes longer than at the next one of these or at 8."""
MIN_SCALED_SIDE = 8
"""With fewer pixels, two of libjpeg's scales may give sides of the same length, since it rounds them up."""
_EPSILON = 1e-7
"""Rounding may put products of sides and scales that should be whole numbers just below them."""
_JPEG_COLOURS = ("RGB", "YCbCr", "Gray")
_APP1, _START_OF_SCAN = 0xE1, 0xDA
_WITHOUT_LENGTH = frozenset([0x00, 0x01, *range(0xD0, 0xDA), 0xFF])
"""Markers without the length of a segment after them, and bytes that are none."""


def decode_square(data: bytes, size: int) -> Pixels:
    """Decode any image to (size, size, 3): short side resized, centre cropped. Raises UnreadableImage as `decode_image`."""
    with decoder_errors():
        jpeg = _read_header(data)
        if jpeg is not None and not is_elongated((jpeg.width, jpeg.height)):
            eighths = _smallest_scale(min(jpeg.width, jpeg.height), EVAL_OVERSAMPLING * size)
            pixels_HWC = _decode_jpeg(data, jpeg, eighths)
            if pixels_HWC is not None:
                return _square(pixels_HWC, size, (jpeg.height * eighths / 8, jpeg.width * eighths / 8), jpeg.turn)
        return square(np.array(to_rgb(open_image(data))), size)


def square(pixels_HWC: Pixels, size: int) -> Pixels:
    """Apply the evaluation transform to RGB pixels: (size, size, 3)."""
    height, width = pixels_HWC.shape[:2]
    if is_elongated((width, height)):
        return np.asarray(crop_elongated(Image.fromarray(pixels_HWC), size))
    return _square(pixels_HWC, size, (height, width), None)


def decode_crop(data: bytes, size: int, draw: Callable[[int, int], Crop]) -> Pixels:
    """Decode a part of any image, resized to (size, size, 3); see `decode_crops`."""
    return decode_crops(data, [PixelInput(size)], draw)[0]


def decode_crops(data: bytes, forms: Sequence[PixelInput], draw: Callable[[int, int], Crop]) -> list[Pixels]:
    """Decode one part of any image, resized to several squares; it is decoded once, for the largest of them.

    `draw` returns the part for the width and height of the upright image; it is called once, at most. The edges of the part are
    rounded to decoded pixels. Raises UnreadableImage as `decode_image`, ValueError for a part that the image does not have,
    and whatever `draw` raises.
    """
    crop = None
    with decoder_errors():
        jpeg = _read_header(data)
    if jpeg is not None:
        upright = upright_size(jpeg.width, jpeg.height, jpeg.turn)
        crop = draw(*upright)
        crop.check_fits(*upright)
        with decoder_errors():
            squares = _crop_jpeg(data, jpeg, crop.before(jpeg.turn, jpeg.width, jpeg.height), forms)
        if squares is not None:
            return squares
    with decoder_errors():
        image = to_rgb(open_image(data))
    crop = crop or draw(*image.size)
    crop.check_fits(*image.size)
    return _squares(np.array(image.crop(crop.box)), forms)


class _Jpeg(NamedTuple):
    """The stored pixels of a JPEG, by its header."""

    width: int
    height: int
    turn: Image.Transpose | None
    """The operation that brings them upright."""


def _read_header(data: bytes) -> _Jpeg | None:
    """Read the header of a colour or grey JPEG; ten times as fast as PIL. Raises UnreadableImage if it is too large.

    Returns None for other formats, and for files that simplejpeg refuses: PIL reads some, and reports what is wrong with others.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _JPEG_COLOURS:
        return None
    images.check_pixels(width, height)
    images.check_scans(data, width, height)
    return _Jpeg(width, height, upright_transpose(open_image(data)) if _has_metadata(data) else None)


def _has_metadata(data: bytes) -> bool:
    """Return False if no segment before the pixels of a JPEG can be EXIF or XMP."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in _WITHOUT_LENGTH:
        if data[at + 1] in (_APP1, _START_OF_SCAN):
            return data[at + 1] == _APP1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def _smallest_scale(side: int, min_side: float) -> int:
    """Return the eighths at which a side of a JPEG is decoded to at least `min_side`."""
    return next((eighths for eighths in FAST_SCALES if side * eighths >= 8 * max(min_side, MIN_SCALED_SIDE)), 8)


def _decode_jpeg(data: bytes, jpeg: _Jpeg, eighths: int, **options: bool) -> Pixels | None:
    """Decode at that scale, which rounds sides up; not rotated yet. Returns None for files that simplejpeg refuses."""
    high, wide = (-(-side * eighths // 8) for side in (jpeg.height, jpeg.width))
    minimum = {"min_height": high, "min_width": wide} if eighths < 8 else {}
    try:
        pixels_HWC: Pixels = simplejpeg.decode_jpeg(data, "RGB", **minimum, **options)
    except ValueError:
        return None
    return pixels_HWC if pixels_HWC.shape[:2] == (high, wide) else None


def _crop_jpeg(data: bytes, jpeg: _Jpeg, crop: Crop, forms: Sequence[PixelInput]) -> list[Pixels] | None:
    """Decode and resize a part, given in stored pixels, and bring it upright. Returns None as `_decode_jpeg`."""
    side, min_side = min(crop.width, crop.height), CROP_OVERSAMPLING * max(form.size for form in forms)
    eighths = _smallest_scale(side, min_side)
    pixels_HWC = _decode_jpeg(data, jpeg, eighths, fastupsample=side >= min_side)
    if pixels_HWC is None:
        return None
    left, top, right, bottom = (round(edge * eighths / 8) for edge in crop.box)
    return [_upright(square_SSC, jpeg.turn) for square_SSC in _squares(pixels_HWC[top:bottom, left:right], forms)]


def _squares(pixels_HWC: Pixels, forms: Sequence[PixelInput]) -> list[Pixels]:
    """Resize a part of an image to several squares."""
    return [_resize(pixels_HWC, form.interpolation, size=(form.size, form.size)) for form in forms]


def _square(pixels_HWC: Pixels, size: int, sides: tuple[float, float], turn: Image.Transpose | None) -> Pixels:
    """`sides`: height and width of the image in these pixels; those of a scaled one may be fractions."""
    short = min(sides)
    high, wide = (int(size * side / short + _EPSILON) for side in sides)
    if (high, wide) != sides:
        scales = [goal / side + _EPSILON for goal, side in zip((high, wide), sides, strict=True)]
        pixels_HWC = _resize(pixels_HWC, scale_factor=scales)[:high, :wide]
    pixels_HWC = _upright(pixels_HWC, turn)
    top, left = (round((side - size) / 2) for side in pixels_HWC.shape[:2])
    return np.ascontiguousarray(pixels_HWC[top : top + size, left : left + size])


def _resize(pixels_HWC: Pixels, interpolation: Interpolation = "bicubic", **goal: Sequence[float]) -> Pixels:
    """Resize with an antialiased filter. `goal`: `size` (height and width) or `scale_factor` (of each)."""
    # The batch comes first: otherwise torch does not recognise the layout, and copies the result.
    pixels_1CHW = torch.from_numpy(pixels_HWC)[None].permute(0, 3, 1, 2)
    parameters: dict[str, Any] = goal
    resized_1CHW = F.interpolate(pixels_1CHW, **parameters, mode=interpolation, antialias=True)
    resized_HWC: Pixels = resized_1CHW[0].permute(1, 2, 0).numpy()
    return resized_HWC


def _upright(pixels_HWC: Pixels, turn: Image.Transpose | None) -> Pixels:
    if turn is None:
        return pixels_HWC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).transpose(turn))
