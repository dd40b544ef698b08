"""From what a client sends as an image to pixels, or to a message that says why not."""

import base64
import binascii
import re

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.types import ImageInput, Pixels

_DATA_URI = re.compile(r"data:[^,;]*(;[^,;]*)*,", re.IGNORECASE)
_WAY_OUT = "send the bytes of a PNG, JPEG, WebP or GIF file, base64-encoded or as a data URI"


class BadImage(ValueError):
    """An image that cannot be used; the message says why and what to send instead."""


def read_image(image: ImageInput, max_bytes: int, size: int) -> Pixels:
    """The square (size, size, 3) that a student sees: upright, transparency on white, palettes and CMYK converted.

    Raises BadImage: not base64, a URL, empty, too large in bytes or pixels, cut off, or not an image.
    """
    data = image if isinstance(image, bytes) else image_bytes(image, max_bytes)
    if not data:
        raise BadImage(f"is empty; {_WAY_OUT}")
    if len(data) > max_bytes:
        raise BadImage(f"is {len(data):,} bytes, more than the {max_bytes:,} allowed; scale the image down")
    try:
        return decode_square(data, size)
    except ValueError as error:
        raise BadImage(f"{error}; {_WAY_OUT}") from error


def image_bytes(text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 string or data URI. Raises BadImage."""
    head = text[:200].lstrip()
    if re.match(r"(https?|ftp|file|s3)://", head, re.IGNORECASE):
        raise BadImage(f"is a URL, and this deployment does not fetch URLs; {_WAY_OUT}")
    if uri := _DATA_URI.match(head):
        if not uri.group().lower().endswith(";base64,"):
            raise BadImage(f"is a data URI without ;base64; {_WAY_OUT}")
        text = text.lstrip()[uri.end() :]
    if len(text) > max_bytes * 4 // 3 + 1000:
        raise BadImage(f"is about {len(text) * 3 // 4:,} bytes, more than the {max_bytes:,} allowed; scale the image down")
    try:
        return _decoded(text)
    except ValueError as error:
        raise BadImage(f"is not base64 ({error}); {_WAY_OUT}") from error


def _decoded(text: str) -> bytes:
    """Lines and spaces may be in it; few send any, and to look for them takes half as long as to decode. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return base64.b64decode("".join(text.split()), validate=True)
