"""Single items of an index for people: their metadata, and thumbnails of their images.

The planner's process answers with it. Only the items of segments are opened, not their vectors; those of a remote store are
copied once. What was read is kept, with limits: a page of thumbnails reads a compressed shard once.
"""

import contextlib
import io
import json
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from tinyclip.artifacts.paths import index_segment
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import IndexedItem

from tinyclip_workers.data.images import UnreadableImage
from tinyclip_workers.data.index.scanning import content_crc
from tinyclip_workers.data.samples import Sample, UnusableSample, image_bytes, printable, sample_errors
from tinyclip_workers.data.shards import BROKEN_SHARD, PlacedSample, read_placed
from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.retrieval.generations import ITEMS, Generation, SegmentInfo
from tinyclip_workers.retrieval.pictures import Picture, Place, Shard, has_pictures, read_pictures, small_jpeg
from tinyclip_workers.retrieval.reader import GenerationRemoved, read_tombstones
from tinyclip_workers.retrieval.segment import Tombstones, connect_items
from tinyclip_workers.retrieval.segment_writer import encodable
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.user_files import RangeReader, open_file

SKIPPED_BYTES = 256 << 20
"""Of a shard that can only be read from its beginning, samples up to here are read."""
KEPT_THUMBNAIL_BYTES, KEPT_IMAGE_BYTES = 16 << 20, 48 << 20
"""Limits of the thumbnails that are kept, and of the images of compressed shards beside those that were requested."""
KEPT_GENERATIONS, KEPT_SEGMENTS, OPEN_SHARDS = 8, 64, 4
BUILD_AGAIN = "was built before indexes kept the places of images; build it again (PUT)"

K = TypeVar("K")


class NoSuchItem(LookupError):
    """No item has the id."""


class NoThumbnail(LookupError):
    """An item without an image that can be shown; the message has the reason."""


class Items(Protocol):
    """The items of an index."""

    def view(self, id: str) -> IndexedItem:
        """Return an item. Raises NoSuchItem, OSError."""
        ...

    def thumbnail(self, id: str, size: int) -> bytes:
        """Return a JPEG of an item's image whose longer side has at most `size` pixels.

        Raises NoSuchItem, NoThumbnail, OSError.
        """
        ...


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


class _Items:
    """The items of one segment."""

    def __init__(self, store: ArtifactsStore, index: str, segment: str) -> None:
        """Raises OSError."""
        folder = index_segment(index, segment)
        local = store.local_path(folder)
        if local is None:
            local = Path(tempfile.mkdtemp(prefix="tinyclip-items-"))
            weakref.finalize(self, shutil.rmtree, local, ignore_errors=True)
            store.get_file(f"{folder}/{ITEMS}", local / ITEMS)
        self._connection = connect_items(local / ITEMS)
        weakref.finalize(self, self._connection.close)
        self.has_pictures = has_pictures(self._connection)

    def row(self, id: str) -> int | None:
        found = self._connection.execute("SELECT row FROM items WHERE id = ?", (id,)).fetchone()
        return None if found is None else int(found[0])

    def metadata(self, row: int) -> str:
        return str(self._connection.execute("SELECT metadata FROM items WHERE row = ?", (row,)).fetchone()[0])

    def picture(self, row: int) -> Picture | None:
        return read_pictures(self._connection, [row]).get(row) if self.has_pictures else None


@dataclass(frozen=True)
class _Found:
    segment: str
    items: _Items
    row: int


class FilesItems:
    """The items of one generation of an index in files."""

    def __init__(self, store: ArtifactsStore, generation: Generation) -> None:
        """Raises OSError."""
        self._store, self._name = store, generation.name
        self._segments: list[tuple[SegmentInfo, Tombstones]] = [
            (info, read_tombstones(store, generation.name, info)) for info in reversed(generation.segments)
        ]
        for info, _ in self._segments[:KEPT_SEGMENTS]:
            _items(store.root, self._name, info.id)  # before a newer generation removes them

    def view(self, id: str) -> IndexedItem:
        """See `Items.view`."""
        found = self._find(id)
        picture = found.items.picture(found.row)
        shard = picture.shard.url if isinstance(picture, Place) else None
        return IndexedItem(
            id=id, metadata=json.loads(found.items.metadata(found.row)), shard=shard,
            has_thumbnail=picture is not None and _refusal(picture) is None,
        )  # fmt: skip

    def thumbnail(self, id: str, size: int) -> bytes:
        """See `Items.thumbnail`."""
        found = self._find(id)
        key = found.segment, found.row, size
        jpeg = _thumbnails.get(key)
        if jpeg is None:
            jpeg = self._make(id, found, size)
            _thumbnails.add(key, jpeg)
        return jpeg

    def _find(self, id: str) -> _Found:
        id = encodable(id)
        for info, tombstones in self._segments:
            items = _items(self._store.root, self._name, info.id)
            row = items.row(id)
            if row is not None and not _contains(tombstones, row):
                return _Found(info.id, items, row)
        raise NoSuchItem(f"index {self._name} has no item {printable(id)}")

    def _make(self, id: str, found: _Found, size: int) -> bytes:
        picture = found.items.picture(found.row)
        if picture is None:
            unknown = f"has no known image: index {self._name} {BUILD_AGAIN}"
            raise NoThumbnail(f"item {printable(id)} {'was added without an image' if found.items.has_pictures else unknown}")
        if (refusal := _refusal(picture)) is not None:
            raise NoThumbnail(f"the image of item {printable(id)} cannot be read: {refusal}")
        try:
            return small_jpeg(picture if isinstance(picture, bytes) else _images.read(picture, encodable(id)), size)
        except (UnusableSample, UnreadableImage, *BROKEN_SHARD) as error:
            raise NoThumbnail(f"the image of item {printable(id)} cannot be read: {printable(str(error))}") from error


class DatabaseItems:
    """The items of an index in PostgreSQL. Its tables keep no places of images."""

    def __init__(self, generation: Generation) -> None:
        """Raises ValueError or MissingExtra if the database cannot be used here."""
        from tinyclip_workers.retrieval.postgres.reader import PostgresReader  # an extra

        self._name, self._reader = generation.name, PostgresReader(generation)

    def view(self, id: str) -> IndexedItem:
        """See `Items.view`."""
        try:
            metadata = self._reader.metadata(id)
        except GenerationRemoved as error:
            raise NoSuchItem(str(error)) from error
        if metadata is None:
            raise NoSuchItem(f"index {self._name} has no item {printable(id)}")
        return IndexedItem(id=id, metadata=json.loads(metadata), shard=None, has_thumbnail=False)

    def thumbnail(self, id: str, size: int) -> bytes:
        """See `Items.thumbnail`; raises NoThumbnail for every item."""
        self.view(id)
        raise NoThumbnail(f"index {self._name} is in a database, which keeps no places of images; build it with store: files")


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


def _refusal(picture: Picture) -> str | None:
    """Return why a picture is not read."""
    if isinstance(picture, Place) and picture.shard.sequential and picture.offset > SKIPPED_BYTES:
        return f"it lies behind {SKIPPED_BYTES:,} bytes of a shard that can only be read from its beginning"
    return None


def _contains(tombstones: Tombstones, row: int) -> bool:
    place = int(np.searchsorted(tombstones, row))
    return place < len(tombstones) and int(tombstones[place]) == row


_thumbnails = BytesCache[tuple[str, int, int]](KEPT_THUMBNAIL_BYTES)
_images = _Images()


@lru_cache(KEPT_SEGMENTS)
def _items(root: str, index: str, segment: str) -> _Items:
    return _Items(open_own_store(root), index, segment)


@lru_cache(KEPT_GENERATIONS)
def open_items(root: str, name: str, stamp: str) -> Items:
    """Return the items of an index's newest generation at the first call with this `stamp`, which changes with the index.

    Raises NoSuchItem if it has no generation, OSError, and ValueError or MissingExtra if its database cannot be used here.
    """
    store = open_own_store(root)
    generation = newest(store, name)
    if generation is None:
        raise NoSuchItem(f"index {name} has no finished build yet")
    if generation.store == "pgvector":
        return DatabaseItems(generation)
    try:
        return FilesItems(store, generation)
    except FileNotFoundError:  # replaced after it was read
        again = newest(store, name)
        if again is None or again == generation:
            raise
        return FilesItems(store, again)
