"""Where the image of an item lies: its place in a shard, or a small JPEG in the segment of an item that was added by request.

They are tables beside the items of a segment (`items.sqlite`), which older readers ignore and older segments lack; for indexes
in PostgreSQL see `postgres/pictures.py`. Only a build writes places, so that no request can name a file through them.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinyclip_workers.data.images import UnreadableImage, decode_image
from tinyclip_workers.data.thumbnails import jpeg_thumbnail

KEPT_SIDE, KEPT_BYTES = 256, 32 << 10
"""Limits of the JPEG that is kept of an added image: pixels of its longer side, and bytes."""
KEPT_QUALITY, SHOWN_QUALITY = 75, 85

TABLES = """
CREATE TABLE shards (id INTEGER PRIMARY KEY, url TEXT NOT NULL, image_keys TEXT NOT NULL, sequential INTEGER NOT NULL,
                     UNIQUE (url, image_keys, sequential));
CREATE TABLE pictures (row INTEGER PRIMARY KEY, shard INTEGER, sample INTEGER, offset INTEGER, length INTEGER, crc INTEGER,
                       jpeg BLOB);
"""


@dataclass(frozen=True)
class Shard:
    """A shard with images of items."""

    url: str
    image_keys: tuple[str, ...]
    """Extensions of images, of which a sample's first one is its image."""
    sequential: bool
    """True if it cannot be read from an offset: it is compressed, or its server has no range requests."""


@dataclass(frozen=True)
class Place:
    """The place of an item's sample."""

    shard: Shard
    sample: int
    """Its number in the shard."""
    offset: int
    """Of its first header in the decompressed shard, in bytes."""
    length: int
    """From there to the end of its last file, in bytes."""
    crc: int
    """CRC-32 of the contents of its files, which shows that the shard has changed."""


Picture = Place | bytes
"""A place, or a JPEG."""


def small_jpeg(data: bytes, size: int, quality: int = SHOWN_QUALITY) -> bytes:
    """Return an image as a JPEG whose longer side has at most `size` pixels. Raises UnreadableImage."""
    return jpeg_thumbnail(decode_image(data), size, quality)


def kept_jpeg(data: bytes) -> bytes | None:
    """Return the JPEG that is kept of an added image; None if it cannot be decoded."""
    try:
        image = decode_image(data)
    except UnreadableImage:
        return None
    for size in (KEPT_SIDE, KEPT_SIDE // 2):
        if len(jpeg := jpeg_thumbnail(image, size, KEPT_QUALITY)) <= KEPT_BYTES:
            return jpeg
    return None


class PictureWriter:
    """Writes the pictures of a new segment's rows."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._shards: dict[Shard, int] = {}
        connection.executescript(TABLES)

    def add(self, first: int, pictures: Sequence[Picture | None]) -> None:
        """Add the pictures of rows from `first` on; those that are None have none."""
        rows = [self._columns(row, picture) for row, picture in enumerate(pictures, first) if picture is not None]
        self._connection.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _columns(self, row: int, picture: Picture) -> tuple[object, ...]:
        if isinstance(picture, bytes):
            return row, None, None, None, None, None, picture
        return row, self._shard(picture.shard), picture.sample, picture.offset, picture.length, picture.crc, None

    def _shard(self, shard: Shard) -> int:
        known = self._shards.get(shard)
        if known is None:
            known = self._shards[shard] = len(self._shards)
            columns = known, _encodable(shard.url), json.dumps(shard.image_keys), shard.sequential
            self._connection.execute("INSERT INTO shards VALUES (?, ?, ?, ?)", columns)
        return known


def has_pictures(connection: sqlite3.Connection) -> bool:
    """Return whether a segment has the tables: one of an older version has not."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pictures'").fetchone() is not None


def read_pictures(connection: sqlite3.Connection, rows: Sequence[int]) -> Mapping[int, Picture]:
    """Return the pictures of rows that have one; at most as many rows as SQLite accepts parameters."""
    marks = ",".join("?" * len(rows))
    query = (
        "SELECT row, sample, offset, length, crc, jpeg, url, image_keys, sequential FROM pictures"
        f" LEFT JOIN shards ON shards.id = pictures.shard WHERE row IN ({marks})"
    )
    return dict(_parsed(connection.execute(query, rows)))


def _parsed(found: Iterable[tuple[object, ...]]) -> Iterable[tuple[int, Picture]]:
    shards: dict[tuple[object, ...], Shard] = {}
    for row, sample, offset, length, crc, jpeg, *shard in found:
        if isinstance(jpeg, bytes):
            yield int(str(row)), jpeg
            continue
        key = tuple(shard)
        if key not in shards:
            url, image_keys, sequential = key
            shards[key] = Shard(str(url), tuple(json.loads(str(image_keys))), bool(sequential))
        yield int(str(row)), Place(shards[key], *(int(str(number)) for number in (sample, offset, length, crc)))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
