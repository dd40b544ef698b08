"""The tables of pictures beside an index's items: places of images in shards, and small JPEGs (`retrieval/pictures.py`).

They are tables of their own, because rows of items hold as much as fits into a page, and those of an older version have none.
"""

import json
import uuid
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from psycopg import sql
from tinyclip.index_database import pictures_name, shards_name

from tinyclip_workers.retrieval.pictures import Picture, Place, Shard
from tinyclip_workers.retrieval.postgres.conditions import escape_text, unescape_text
from tinyclip_workers.retrieval.postgres.database import Connection

_COLUMNS = ("key", "shard", "sample", "start", "length", "crc", "jpeg")
_TYPES = ("uuid", "int4", "int8", "int8", "int8", "int8", "bytea")
READ_COLUMNS = "sample, start, length, crc, jpeg, url, image_keys, sequential"
"""The columns of a picture, for `parse_picture`."""


class PictureTables:
    """The tables of pictures of an index, on a connection. The pictures of one build are added by one instance."""

    def __init__(self, connection: Connection, id: str) -> None:
        self._connection = connection
        self._pictures, self._shards = sql.Identifier(pictures_name(id)), sql.Identifier(shards_name(id))
        self._id = id
        self._known: dict[Shard, int] = {}

    @cached_property
    def exist(self) -> bool:
        """True if the index has these tables; one that an older version has built has none."""
        return has_pictures(self._connection, self._id)

    def create(self) -> None:
        """Create the empty tables, in the caller's transaction."""
        shards = "id int PRIMARY KEY, url text NOT NULL, image_keys text NOT NULL, sequential bool NOT NULL"
        pictures = "key uuid PRIMARY KEY, shard int, sample bigint, start bigint, length bigint, crc bigint, jpeg bytea"
        for table, columns in ((self._shards, sql.SQL(shards)), (self._pictures, sql.SQL(pictures))):
            self._connection.execute(sql.SQL("CREATE TABLE {} ({})").format(table, columns))

    def add(self, keys: Sequence[uuid.UUID], pictures: Sequence[Picture | None]) -> None:
        """Add the pictures of items with these keys; those that are None have none."""
        if not self.exist:
            return
        rows = [(key, *self._columns(picture)) for key, picture in zip(keys, pictures, strict=True) if picture is not None]
        columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self._pictures, columns)
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for row in rows:
                copy.write_row(row)

    def remove(self, keys: Sequence[uuid.UUID]) -> None:
        """Delete the pictures of items."""
        if self.exist:
            self._connection.execute(sql.SQL("DELETE FROM {} WHERE key = ANY(%s)").format(self._pictures), (list(keys),))

    def _columns(self, picture: Picture) -> tuple[object, ...]:
        if isinstance(picture, bytes):
            return None, None, None, None, None, picture
        return self._shard(picture.shard), picture.sample, picture.offset, picture.length, picture.crc, None

    def _shard(self, shard: Shard) -> int:
        known = self._known.get(shard)
        if known is None:
            known = self._known[shard] = len(self._known)
            columns = known, escape_text(shard.url), json.dumps(shard.image_keys), shard.sequential
            self._connection.execute(sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s)").format(self._shards), columns)
        return known


def has_pictures(connection: Connection, id: str) -> bool:
    """Return whether the tables of pictures exist."""
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (pictures_name(id),)).fetchone()
    return bool(found and found[0])


def parse_picture(columns: Sequence[Any]) -> Picture | None:
    """Return a picture from its columns; None if all of them are NULL."""
    sample, start, length, crc, jpeg, url, image_keys, sequential = columns
    if jpeg is not None:
        return bytes(jpeg)
    if url is None:
        return None
    return Place(Shard(unescape_text(url), tuple(json.loads(image_keys)), sequential), sample, start, length, crc)
