"""Single items of an index for people: their metadata, and thumbnails of their images.

The planner's process answers with it. Only the items of segments are opened, not their vectors; those of a remote store are
copied once.
"""

import json
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from tinyclip.artifacts.paths import index_segment
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import IndexedItem

from tinyclip_workers.data.samples import printable
from tinyclip_workers.retrieval.commits import newest
from tinyclip_workers.retrieval.generations import ITEMS, Generation, SegmentInfo
from tinyclip_workers.retrieval.images import NoThumbnail, refusal, thumbnail_of
from tinyclip_workers.retrieval.pictures import Picture, Place, has_pictures, read_pictures
from tinyclip_workers.retrieval.reader import GenerationRemoved, read_tombstones
from tinyclip_workers.retrieval.segment import Tombstones, connect_items
from tinyclip_workers.retrieval.segment_writer import encodable
from tinyclip_workers.runtime.filesystems import open_own_store

KEPT_GENERATIONS, KEPT_SEGMENTS = 8, 64
BUILD_AGAIN = "was built before indexes kept the places of images; build it again (PUT)"


class NoSuchItem(LookupError):
    """No item has the id."""


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
    """An item of an index."""

    index: str
    id: str
    metadata: str
    """As JSON."""
    picture: Picture | None
    has_pictures: bool
    """False if an older version has written the item, so that no image is known."""

    def view(self) -> IndexedItem:
        shard = self.picture.shard.url if isinstance(self.picture, Place) else None
        return IndexedItem(
            id=self.id, metadata=json.loads(self.metadata), shard=shard,
            has_thumbnail=self.picture is not None and refusal(self.picture) is None,
        )  # fmt: skip

    def thumbnail(self, size: int) -> bytes:
        """Raises NoThumbnail."""
        if self.picture is None:
            unknown = f"has no known image: index {self.index} {BUILD_AGAIN}"
            raise NoThumbnail(f"item {printable(self.id)} {'was added without an image' if self.has_pictures else unknown}")
        return thumbnail_of(self.id, self.picture, size)


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
        return self._find(id).view()

    def thumbnail(self, id: str, size: int) -> bytes:
        """See `Items.thumbnail`."""
        return self._find(id).thumbnail(size)

    def _find(self, id: str) -> _Found:
        for info, tombstones in self._segments:
            items = _items(self._store.root, self._name, info.id)
            row = items.row(encodable(id))
            if row is not None and not _contains(tombstones, row):
                return _Found(self._name, id, items.metadata(row), items.picture(row), items.has_pictures)
        raise NoSuchItem(f"index {self._name} has no item {printable(id)}")


class DatabaseItems:
    """The items of an index in PostgreSQL, as its tables are now."""

    def __init__(self, generation: Generation) -> None:
        """Raises ValueError or MissingExtra if the database cannot be used here."""
        from tinyclip_workers.retrieval.postgres.reader import PostgresReader  # an extra

        self._name, self._reader = generation.name, PostgresReader(generation)

    def view(self, id: str) -> IndexedItem:
        """See `Items.view`."""
        return self._find(id).view()

    def thumbnail(self, id: str, size: int) -> bytes:
        """See `Items.thumbnail`."""
        return self._find(id).thumbnail(size)

    def _find(self, id: str) -> _Found:
        try:
            item = self._reader.item(id)
        except GenerationRemoved as error:
            raise NoSuchItem(str(error)) from error
        if item is None:
            raise NoSuchItem(f"index {self._name} has no item {printable(id)}")
        return _Found(self._name, id, item.metadata, item.picture, item.has_pictures)


def _contains(tombstones: Tombstones, row: int) -> bool:
    place = int(np.searchsorted(tombstones, row))
    return place < len(tombstones) and int(tombstones[place]) == row


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
