"""Real pictures kept with a model version: a fast engine is calibrated on some of them and compared with torch on the others.

They are training pictures, cropped and scaled to what the student sees. A version without the file is as good a version;
only exact engines can serve it.
"""

import io
import logging
import zipfile
from collections.abc import Iterator
from itertools import islice

import numpy as np
from tinyclip.schemas.spec import DataSpec

from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.shards import DataError, Skipped, expand_shards, image_bytes, is_held_out, read_shards
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Pixels

log = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.npz"
FEWEST, MOST, BYTES = 64, 320, 10_000_000
"""Pictures that are kept: what fits into so many bytes, within limits. The smaller a picture, the fewer numbers it shows a layer,
and the more pictures it takes until their range is known (docs/decisions/0025-int8.md)."""
LEAST = 8
"""With fewer there is nothing to calibrate on."""
MOST_SHARDS = 8


def kept(size: int) -> int:
    """How many pictures of this size."""
    return max(FEWEST, min(MOST, BYTES // (3 * size * size)))


def sample_pictures(data: DataSpec, size: int) -> Pixels:
    """Up to `kept(size)` training pictures (B, size, size, 3) from the beginnings of a few shards; none if none can be read."""
    try:
        urls = expand_shards(data.train.shards)
        chosen = urls[:: -(-len(urls) // MOST_SHARDS)] if urls else []
        share = -(-kept(size) // max(1, len(chosen)))
        pictures = [picture for url in chosen for picture in islice(_pictures(url, data, size), share)][: kept(size)]
    except (DataError, OSError, ValueError) as error:
        log.warning("no calibration pictures: %s", error)
        pictures = []
    return np.stack(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)


def calibration_file(pictures_BHWC: Pixels) -> bytes:
    """As it is kept."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images_BHWC=pictures_BHWC)
    return buffer.getvalue()


def read_calibration(model_uri: str, size: int) -> Pixels | None:
    """A version's pictures (B, size, size, 3); None where there are none, too few, or no use in the file (the log says)."""
    store = Store(model_uri)
    if not store.exists(CALIBRATION_FILE):
        return None
    try:
        with np.load(io.BytesIO(store.read_bytes(CALIBRATION_FILE)), allow_pickle=False) as file:
            pictures_BHWC: Pixels = file["images_BHWC"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be used: %s", store.uri(CALIBRATION_FILE), error)
        return None
    if pictures_BHWC.dtype != np.uint8 or pictures_BHWC.shape[1:] != (size, size, 3) or len(pictures_BHWC) < LEAST:
        log.warning("%s holds %s %s", store.uri(CALIBRATION_FILE), pictures_BHWC.dtype, pictures_BHWC.shape)
        return None
    return pictures_BHWC


def divided(pictures_BHWC: Pixels) -> tuple[Pixels, Pixels]:
    """Three quarters to calibrate on, and every fourth to compare on."""
    compared = np.arange(len(pictures_BHWC)) % 4 == 3
    return pictures_BHWC[~compared], pictures_BHWC[compared]


def _pictures(url: str, data: DataSpec, size: int) -> Iterator[Pixels]:
    for sample in read_shards([url], Skipped()):
        if is_held_out(sample["__key__"], data.train.holdout):
            continue
        try:
            yield decode_square(image_bytes(sample, data.train.image_key), size)
        except (KeyError, ValueError):
            continue  # training has skipped it as well
