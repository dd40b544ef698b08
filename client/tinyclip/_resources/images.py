"""Images as requests carry them."""

import base64
import os
from pathlib import Path

from tinyclip.errors import InputError

ImageLike = str | os.PathLike[str] | bytes
"""A file's path, its bytes, or an http(s) URL or data URI that is sent as it is."""


def encode(image: ImageLike) -> str:
    """Return a file or bytes in base64; URLs and data URIs unchanged. Raises `InputError` for a file that cannot be read."""
    if isinstance(image, bytes):
        return base64.b64encode(image).decode()
    if isinstance(image, str) and image.startswith(("http://", "https://", "data:")):
        return image
    try:
        return base64.b64encode(Path(image).read_bytes()).decode()
    except OSError as error:
        hint = f"{error.strerror or error}; name an image file, an http(s) URL or a data URI"
        raise InputError(f"image {os.fspath(image)}", hint) from error
