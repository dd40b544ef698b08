"""Thumbnails of the images of items, which are read at their places in shards.

What was read is kept, with limits: a page of thumbnails reads a compressed shard once.
"""

import contextlib
import io
from collections import OrderedDict
from collections.abc import Generator
from typing import Generic, TypeVar

from tinyclip_workers.data.images import UnreadableImage
from tinyclip_workers.data.index.scanning import content_crc
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, printable, sample_errors
from tinyclip_workers.data.shards import BROKEN_SHARD, PlacedSample, read_placed
from tinyclip_workers.retrieval.pictures import Picture, Place, Shard, small_jpeg
from tinyclip_workers.retrieval.segment_writer import encodable
from tinyclip_workers.runtime.user_files import RangeReader, open_file

SKIPPED_BYTES = 256 << 20
"""Of a shard that can only be read from its beginning, samples up to here are read."""
KEPT_THUMBNAIL_BYTES, KEPT_IMAGE_BYTES = 16 << 20, 48 << 20
"""Limits of the thumbnails that are kept, and of the images of compressed shards beside those that were requested."""
OPEN_SHARDS = 4

K = TypeVar("K")


class NoThumbnail(LookupError):
    """An item without an image that can be shown; the message has the reason."""


def thumbnail_of(id: str, picture: Picture, size: int) -> bytes:
    """Return a JPEG of an item's image whose longer side has at most `size` pixels. Raises NoThumbnail."""
    key = (id, picture, size) if isinstance(picture, Place) else None  # a JPEG is small, and made in a millisecond
    jpeg = _thumbnails.get(key) if key is not None else None
    if jpeg is None:
        jpeg = _make(id, picture, size)
        if key is not None:
            _thumbnails.add(key, jpeg)
    return jpeg


def _make(id: str, picture: Picture, size: int) -> bytes:
    if (reason := refusal(picture)) is not None:
        raise NoThumbnail(f"the image of item {printable(id)} cannot be read: {reason}")
    try:
        return small_jpeg(picture if isinstance(picture, bytes) else _images.read(picture, encodable(id)), size)
    except (UnusableSample, UnreadableImage, *BROKEN_SHARD) as error:
        raise NoThumbnail(f"the image of item {printable(id)} cannot be read: {printable(str(error))}") from error


def refusal(picture: Picture) -> str | None:
    """Return why a picture is not read."""
    if isinstance(picture, Place) and picture.shard.sequential and picture.offset > SKIPPED_BYTES:
        return f"it lies behind {SKIPPED_BYTES:,} bytes of a shard that can only be read from its beginning"
    return None


class BytesCache(Generic[K]):
    """The bytes that were used last, up to a limit of all together."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._kept = limit, 0, OrderedDict[K, bytes]()

    def get(self, key: K) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def add(self, key: K, data: bytes) -> None:
        self._used += len(data) - len(self._kept.pop(key, b""))
        self._kept[key] = data
        while self._used > self._limit:
            self._used -= len(self._kept.popitem(last=False)[1])


class _Images:
    """Reads images at their places. Of compressed shards, those that were read on the way are kept, and the stream stays open."""

    def __init__(self) -> None:
        self._ranges = RangeReader(OPEN_SHARDS)
        self._kept = BytesCache[tuple[Shard, int, int, str]](KEPT_IMAGE_BYTES)
        self._open: OrderedDict[Shard, tuple[int, Generator[PlacedSample, None, None]]] = OrderedDict()

    def read(self, place: Place, id: str) -> bytes:
        """Return the image of the item `id`. Raises UnusableSample if it is not there any more, or one of BROKEN_SHARD."""
        if place.shard.sequential:
            return self._read_from_beginning(place, id)
        data = self._ranges.read(place.shard.url, place.offset, place.length)
        for sample, _, _ in read_placed(place.shard.url, io.BytesIO(data)):
            if _same(sample, id, place.crc):
                return _image(sample, place.shard)
        raise _changed(place)

    def _read_from_beginning(self, place: Place, id: str) -> bytes:
        image = self._kept.get((place.shard, place.sample, place.crc, id))
        if image is not None:
            return image
        at, stream = self._take_stream(place)
        for number, placed in enumerate(stream, at):
            sample, crc = placed.sample, content_crc(placed.sample)
            if number == place.sample:
                self._keep_stream(place.shard, number + 1, stream)
                if not _same(sample, id, place.crc):
                    break
                return _image(sample, place.shard)
            with contextlib.suppress(UnusableSample):
                self._kept.add((place.shard, number, crc, encodable(sample["__key__"])), _image(sample, place.shard))
        raise _changed(place)

    def _take_stream(self, place: Place) -> tuple[int, Generator[PlacedSample, None, None]]:
        """Return a stream of a shard at or before a place, and the number of its next sample."""
        at, stream = self._open.pop(place.shard, (0, None))
        if stream is not None and at > place.sample:
            stream.close()
            at, stream = 0, None
        return at, stream or _stream(place.shard)

    def _keep_stream(self, shard: Shard, at: int, stream: Generator[PlacedSample, None, None]) -> None:
        self._open[shard] = at, stream
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)[1][1].close()

    def close(self) -> None:
        """Close the files."""
        self._ranges.close()
        while self._open:
            self._open.popitem()[1][1].close()


def _stream(shard: Shard) -> Generator[PlacedSample, None, None]:
    with open_file(shard.url) as file:
        yield from read_placed(shard.url, file)


def _same(sample: Sample, id: str, crc: int) -> bool:
    return encodable(sample["__key__"]) == id and content_crc(sample) == crc


def _image(sample: Sample, shard: Shard) -> bytes:
    """Raises UnusableSample."""
    with sample_errors():
        return image_bytes(sample, shard.image_keys)


def _changed(place: Place) -> UnusableSample:
    return UnusableSample(f"{place.shard.url} has changed since the index was built; build it again (PUT)")


_thumbnails = BytesCache[tuple[str, Place, int]](KEPT_THUMBNAIL_BYTES)
_images = _Images()
