"""Pictures as a request carries them."""

import base64
import os
from pathlib import Path

from tinyclip.errors import InputError

Picture = str | os.PathLike[str] | bytes
"""A file's path, its bytes, or an http(s) URL or data URI that is sent as it is."""


def encode(picture: Picture) -> str:
    """Base64 of a file or of bytes; URLs and data URIs unchanged. Raises `InputError` for a file that cannot be read."""
    if isinstance(picture, bytes):
        return base64.b64encode(picture).decode()
    if isinstance(picture, str) and picture.startswith(("http://", "https://", "data:")):
        return picture
    try:
        return base64.b64encode(Path(picture).read_bytes()).decode()
    except OSError as failure:
        way_out = f"{failure.strerror or failure}; name a picture's file, an http(s) URL or a data URI"
        raise InputError(f"image {os.fspath(picture)}", way_out) from failure
