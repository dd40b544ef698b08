"""From image bytes to RGB pixels, by PIL."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

Image.init()
FORMATS = tuple({"PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO"} & Image.OPEN.keys())
"""Raster images only: PIL also opens formats that call other programs (EPS, PDF) or read further files."""
MAX_PIXELS = 64_000_000
"""A larger image is refused before it is decoded: a small file can unpack to gigabytes."""
MAX_SCANNED_PIXELS = 1_000_000_000
"""Limit of pixels times scans of a progressive JPEG: each scan visits every pixel, however short it is. Encoders write ten."""
SCAN_BYTES = 10
"""Bytes of the shortest header of a scan."""
MAX_ASPECT_RATIO = 16
"""An image with a larger ratio of its sides is cropped before it is resized: most of the resized image would be thrown away."""
ALWAYS_ALLOWED_TILE = 1 << 20
"""Pixels that a tile of a TIFF may have, even if the image has fewer."""
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 0x0112, 322, 323
_UPRIGHT_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""The operation that brings an image of that EXIF orientation upright."""


class UnreadableImage(ValueError):
    """Bytes that are not a usable image; the message has the reason."""


def decode_image(data: bytes) -> Image.Image:
    """Decode bytes of any of FORMATS to RGB: the first frame, upright according to EXIF, transparency on white, 16 bits as 8.

    Raises UnreadableImage if the bytes are not an image, are truncated, or have more than MAX_PIXELS pixels.
    """
    with decoder_errors():
        return to_rgb(open_image(data))


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Convert any exception of a decoder to UnreadableImage: arbitrary bytes make decoders raise every kind of exception."""
    try:
        yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("not a readable image: no known format") from error
    except Exception as error:
        raise UnreadableImage(f"not a readable image: {error or type(error).__name__}") from error


def open_image(data: bytes) -> Image.Image:
    """Read the header, without decoding pixels. Raises UnreadableImage, and whatever PIL raises."""
    file: Any = Image.open(io.BytesIO(data), formats=FORMATS)
    # An ICO file contains an image whose size may differ from that in its directory.
    width, height = file.ico.getimage(file.size).size if file.format == "ICO" else file.size
    check_pixels(width, height)
    pixels = width * height
    if file.format == "TIFF" and _tile_pixels(file) > max(pixels, ALWAYS_ALLOWED_TILE):
        raise UnreadableImage(f"its tiles are larger than the image of {width}x{height} pixels; save it with smaller tiles")
    if file.format in ("JPEG", "MPO"):
        check_scans(data, width, height)
    image: Image.Image = file
    return image


def check_pixels(width: int, height: int) -> None:
    """Raise UnreadableImage if an image of that size has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels are more than {MAX_PIXELS:,}; scale the image down")


def check_scans(data: bytes, width: int, height: int) -> None:
    """Raise UnreadableImage if the scans of a JPEG visit more than MAX_SCANNED_PIXELS."""
    pixels = width * height
    if pixels * (len(data) // SCAN_BYTES) <= MAX_SCANNED_PIXELS:
        return  # however many scans there are: counting takes as long as a tenth of decoding
    if pixels * (scans := data.count(b"\xff\xda")) > MAX_SCANNED_PIXELS:
        raise UnreadableImage(f"{scans} scans of {width}x{height} pixels are too many; save it as a baseline JPEG")


def _tile_pixels(file: Any) -> int:
    """Return the pixels of one tile of a TIFF, which is unpacked whole; 0 if it has none."""
    return int(file.tag_v2.get(_TILE_WIDTH, 0)) * int(file.tag_v2.get(_TILE_HEIGHT, 0))


def upright_transpose(file: Image.Image) -> Image.Transpose | None:
    """Return the operation that brings the image upright; None if it is upright or its EXIF cannot be read."""
    try:
        return _UPRIGHT_TRANSPOSE.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # cameras and editors write broken EXIF; the pixels are still good
        return None


def to_rgb(file: Image.Image) -> Image.Image:
    """Decode, bring upright and convert to RGB. Raises whatever PIL raises."""
    file.load()
    turn = upright_transpose(file)
    image = file if turn is None else file.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey, integers (16 bits, unless all fit 8) or floats (0 to 1, unless some are larger) to 8 bits."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        top = 1.0 if grey.max() <= 1 else 255.0
    else:
        top = 255.0 if image.mode == "I" and grey.max() <= 255 else 65535.0
    return Image.fromarray((grey.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))


def is_elongated(sides: tuple[int, int]) -> bool:
    return max(sides) > MAX_ASPECT_RATIO * min(sides)


def crop_elongated(
    image: Image.Image, size: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Return the centre square in that size: the same as resizing the whole image and cropping, within rounding."""
    width, height = image.size
    short = min(width, height)
    long = int(size * max(width, height) / short)
    scale = max(width, height) / long
    start = round((long - size) / 2) * scale
    along, across = (start, start + size * scale), (0.0, float(short))
    (left, right), (top, bottom) = (along, across) if width > height else (across, along)
    return image.resize((size, size), resampling, box=(left, top, right, bottom))

