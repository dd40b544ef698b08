"""Images in requests: from bytes or text to pixels, or to a message with what is wrong and what to send instead."""

import base64
import binascii
import re
import string

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.types import ImageInput, Pixels

_DATA_URI = re.compile(r"data:[^,;]*(;[^,;]*)*,", re.IGNORECASE)
_REMEDY = "send the bytes of a PNG, JPEG, WebP or GIF file, base64-encoded or as a data URI"


class BadImage(ValueError):
    """An image that cannot be used; the message has the reason and what to send instead."""


def read_image(image: ImageInput, max_bytes: int, size: int) -> Pixels:
    """Return the square (size, size, 3) that a student takes: upright, transparency on white, palettes and CMYK converted.

    Raises BadImage if it is not base64, a URL, empty, too large in bytes or pixels, truncated, or not an image.
    """
    data = image_data(image, max_bytes)
    try:
        return decode_square(data, size)
    except ValueError as error:
        raise BadImage(f"{error}; {_REMEDY}") from error


def image_data(image: ImageInput, max_bytes: int) -> bytes:
    """Return the bytes of an image's file. Raises BadImage if there are none, or more than `max_bytes`."""
    data = image if isinstance(image, bytes) else _decode_text(image, max_bytes)
    if not data:
        raise BadImage(f"is empty; {_REMEDY}")
    if len(data) > max_bytes:
        raise BadImage(f"is {len(data):,} bytes, more than the {max_bytes:,} allowed; scale the image down")
    return data


def _decode_text(text: str, max_bytes: int) -> bytes:
    """Return the bytes of a base64 string or data URI. Raises BadImage."""
    head = text[:200].lstrip()
    if re.match(r"(https?|ftp|file|s3)://", head, re.IGNORECASE):
        raise BadImage(f"is a URL, and this deployment does not fetch URLs; {_REMEDY}")
    if uri := _DATA_URI.match(head):
        if not uri.group().lower().endswith(";base64,"):
            raise BadImage(f"is a data URI without ;base64; {_REMEDY}")
        text = text.lstrip()[uri.end() :]
    if len(text) > max_bytes * 4 // 3 + 1000:
        raise BadImage(f"is about {len(text) * 3 // 4:,} bytes, more than the {max_bytes:,} allowed; scale the image down")
    try:
        return _decode_base64(text)
    except ValueError as error:
        raise BadImage(f"is not base64 ({error}); {_REMEDY}") from error


def _decode_base64(text: str) -> bytes:
    """Decode base64, with or without whitespace. Removing it takes half as long as decoding: only on failure."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return base64.b64decode(text.encode("ascii").translate(None, string.whitespace.encode()), validate=True)
