"""Thumbnails of images in shards, for people: a sample is read from its place, and everything that is read is limited."""

import io
from collections.abc import Sequence

from PIL import Image

from tinyclip_workers.data.images import UnreadableImage, decode_image
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, printable, sample_errors
from tinyclip_workers.data.shards import BROKEN_SHARD, MAX_SAMPLE_BYTES, PlacedSample, read_placed
from tinyclip_workers.data.tar_streams import is_compressed
from tinyclip_workers.runtime.user_files import RangeReader, open_file

SKIPPED_BYTES = 256 << 20
"""Of a shard that can only be read from its beginning, samples up to here are read."""
MAX_PLACE_BYTES = 2 * MAX_SAMPLE_BYTES
"""Limit of a sample with its headers and what lies between its files."""
JPEG_QUALITY = 85
MAGIC_BYTES = 6


class NoThumbnail(LookupError):
    """A sample that cannot be read or has no image; the message has the reason."""


def thumbnail_at(url: str, key: str, start: int, length: int, image_keys: Sequence[str], size: int) -> bytes:
    """Return the thumbnail of the sample at a place of a decompressed shard. Raises NoThumbnail.

    `key`: that of the sample, printable. The address is checked as that of any file of a user.
    """
    try:
        sample = _sample_at(url, start, length)
    except (*BROKEN_SHARD, ValueError) as error:
        raise NoThumbnail(f"sample {key} cannot be read: {printable(str(error))}") from error
    if sample is None or printable(sample["__key__"]) != key:
        raise NoThumbnail(f"sample {key} is no longer where it was: {printable(url)} has changed")
    return sample_thumbnail(sample, key, image_keys, size)


def sample_thumbnail(sample: Sample, key: str, image_keys: Sequence[str], size: int) -> bytes:
    """Return the thumbnail of a sample's image. Raises NoThumbnail."""
    try:
        with sample_errors():
            image = decode_image(image_bytes(sample, image_keys))
    except (UnusableSample, UnreadableImage) as error:
        raise NoThumbnail(f"sample {key} has no image: {printable(str(error))}") from error
    return jpeg_thumbnail(image, size)


def jpeg_thumbnail(image: Image.Image, size: int, quality: int = JPEG_QUALITY) -> bytes:
    """Return a JPEG of a decoded image whose longer side has at most `size` pixels. The image is changed."""
    image.thumbnail((size, size))  # in place: a copy of a large image would take as much memory again
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _sample_at(url: str, start: int, length: int) -> Sample | None:
    """Return the sample that begins at a place; None if there is none. Raises one of BROKEN_SHARD, or ValueError."""
    if length > MAX_PLACE_BYTES:
        raise ValueError(f"it has {length:,} bytes")
    reader = RangeReader(1)
    try:
        if not is_compressed(reader.read(url, 0, MAGIC_BYTES)):
            part = io.BytesIO(reader.read(url, start, length))
            return next((placed.sample for placed in read_placed(url, part)), None)
    finally:
        reader.close()
    if start > SKIPPED_BYTES:
        raise ValueError(f"it lies behind {SKIPPED_BYTES:,} bytes of a shard that can only be read from its beginning")
    with open_file(url) as file:
        return next((placed.sample for placed in read_placed(url, file) if _is_at(placed, start)), None)


def _is_at(placed: PlacedSample, start: int) -> bool:
    """Raises ValueError behind the place."""
    if placed.start > start:
        raise ValueError("no sample begins at its place")
    return placed.start == start
