"""Calibration images of a model version: a fast engine is calibrated on some of them and compared with torch on the others.

They are training images, cropped and scaled to the student's input. A version without the file is complete; only exact engines
can serve it.
"""

import io
import logging
import zipfile
from collections.abc import Iterator
from itertools import islice

import numpy as np
from tinyclip.schemas.spec import DataSpec

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import UnusableSample, image_bytes, is_held_out, sample_errors
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.model.files.folder_files import FILE_SECONDS
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.npz"
MIN_IMAGES, MAX_IMAGES, MAX_BYTES = 64, 320, 10_000_000
"""Size of the file: as many images as fit into so many bytes, within limits. The smaller an image, the fewer values it shows a
layer, and the more images it takes until their range is known (docs/decisions/0025-int8.md)."""
MIN_CALIBRATION_IMAGES = 8
"""A file with fewer is ignored."""
MAX_SHARDS = 8


def image_count(size: int) -> int:
    """Return the number of calibration images of this size."""
    return max(MIN_IMAGES, min(MAX_IMAGES, MAX_BYTES // (3 * size * size)))


def sample_calibration_images(data: DataSpec, size: int) -> Pixels:
    """Return up to `image_count(size)` training images (B, size, size, 3) from the first samples of a few shards.

    Returns none if no shard can be read.
    """
    try:
        urls = expand_shards(data.train.patterns)
        chosen = urls[:: -(-len(urls) // MAX_SHARDS)] if urls else []
        share = -(-image_count(size) // max(1, len(chosen)))
        images = [image for url in chosen for image in islice(_read_images(url, data, size), share)][: image_count(size)]
    except (DataError, OSError, ValueError) as error:
        log.warning("no calibration images: %s", error)
        images = []
    return np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)


def encode_calibration(images_BHWC: Pixels) -> bytes:
    """Return the content of the calibration file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images_BHWC=images_BHWC)
    return buffer.getvalue()


def read_calibration(model_uri: str, size: int) -> Pixels | None:
    """Return a version's calibration images (B, size, size, 3).

    Returns None without the file, and, with a warning in the log, if it is damaged or does not fit the model.
    """
    store = open_own_store(model_uri, limit_s=FILE_SECONDS)
    if not store.exists(CALIBRATION_FILE):
        return None
    try:
        with np.load(io.BytesIO(store.read_bytes(CALIBRATION_FILE)), allow_pickle=False) as file:
            images_BHWC: Pixels = file["images_BHWC"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be used: %s", store.uri(CALIBRATION_FILE), error)
        return None
    count, *shape = images_BHWC.shape
    if images_BHWC.dtype != np.uint8 or shape != [size, size, 3] or count < MIN_CALIBRATION_IMAGES:
        log.warning("%s cannot be used: it holds %s %s", store.uri(CALIBRATION_FILE), images_BHWC.dtype, images_BHWC.shape)
        return None
    return images_BHWC


def split_calibration(images_BHWC: Pixels) -> tuple[Pixels, Pixels]:
    """Split the images: three of four to calibrate on, every fourth to compare engines on."""
    compared = np.arange(len(images_BHWC)) % 4 == 3
    return images_BHWC[~compared], images_BHWC[compared]


def _read_images(url: str, data: DataSpec, size: int) -> Iterator[Pixels]:
    for sample in read_shards([url], Skipped()):
        if is_held_out(sample["__key__"], data.train.holdout):
            continue
        try:
            with sample_errors():
                image = decode_square(image_bytes(sample, data.train.image_key), size)
        except UnusableSample:
            continue  # training skips it as well
        yield image
