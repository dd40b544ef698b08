"""The two tables of an index in PostgreSQL: its items, and one row that says which generation they are.

Readers see either all of a change or nothing of it, since each change is one transaction, and a search one statement.
Which tables an index has is written in the artifacts store before they are made:

indexes/<name>/tables/<id>      the tables `tinyclip_<id>` and `tinyclip_<id>_state` are, or were about to be, this index's

Shapes: N rows, E embedding size.
"""

import json
import uuid
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from psycopg import errors, sql
from psycopg.types.json import Jsonb
from tinyclip.artifacts.paths import index_table
from tinyclip.index_database import drop_statement, state_name, table_name
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval.files import Generation
from tinyclip_workers.retrieval.postgres.conditions import fields_of, stored_text
from tinyclip_workers.retrieval.postgres.database import Connection, connected
from tinyclip_workers.retrieval.segment_writer import storable
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

INLINE_DIMENSIONS = 960
"""Vectors up to this size lie in the rows themselves, two or more to a page: comparing all is then four times as fast."""
LOCK_WAIT = "2s"
"""For the end of a table: whoever asks meanwhile waits as long, and a table that is in use goes another time."""
KEYS_AT_ONCE = 10_000

_COLUMNS = ("row", "key", "id", "metadata", "fields", "vector")
_TYPES = ("int8", "uuid", "text", "text", "jsonb", "vector")

Item = tuple[str, JSON]
"""Id and metadata."""


class Table:
    """The items of one index, on a connection."""

    def __init__(self, connection: Connection, id: str, embed_dim: int) -> None:
        self.connection, self.id, self.embed_dim = connection, id, embed_dim
        self.name = sql.Identifier(table_name(id))

    def with_ids(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are there already."""
        keys = {key_of(id): id for id in ids}
        query = sql.SQL("SELECT key FROM {} WHERE key = ANY(%s)").format(self.name)
        return {keys[key] for (key,) in self.connection.execute(query, (list(keys),))}

    def remove(self, ids: Sequence[str]) -> int:
        """How many were there."""
        query = sql.SQL("DELETE FROM {} WHERE key = ANY(%s)").format(self.name)
        keys = [key_of(id) for id in ids]
        starts = range(0, len(keys), KEYS_AT_ONCE)
        return sum(self.connection.execute(query, (keys[start : start + KEYS_AT_ONCE],)).rowcount for start in starts)

    def add(self, vectors_NE: Matrix, items: Sequence[Item], rows: Sequence[int]) -> None:
        """Items whose ids are not there; `rows` is their order among equally good ones."""
        assert vectors_NE.shape == (len(items), self.embed_dim), (vectors_NE.shape, len(items), self.embed_dim)
        columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self.name, columns)
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for row, (id, metadata), vector_E in zip(rows, items, vectors_NE, strict=True):
                document = storable(json.dumps(metadata, ensure_ascii=False))
                copy.write_row((row, key_of(id), stored_text(id), document, Jsonb(fields_of(metadata)), vector_E))

    def next_row(self) -> int:
        """Above all that are there."""
        query = sql.SQL("SELECT coalesce(max(row), -1) + 1 FROM {}").format(self.name)
        return int(_only(self.connection.execute(query).fetchone()))


def new_table(store: Store, connection: Connection, index: str, embed_dim: int) -> Table:
    """Empty, and named in the store."""
    table = Table(connection, uuid.uuid4().hex, embed_dim)
    store.write_bytes(index_table(index, table.id), b"")
    inline = 8160 if embed_dim <= INLINE_DIMENSIONS else 2040
    create = sql.SQL(
        "CREATE TABLE {} (row bigint NOT NULL, key uuid PRIMARY KEY, id text NOT NULL, metadata text NOT NULL,"
        " fields jsonb NOT NULL, vector vector({}) NOT NULL) WITH (toast_tuple_target = {})"
    )
    state = sql.Identifier(state_name(table.id))
    with connection.transaction():
        connection.execute(create.format(table.name, sql.Literal(embed_dim), sql.Literal(inline)))
        connection.execute(sql.SQL("ALTER TABLE {} ALTER vector SET STATISTICS 0").format(table.name))
        connection.execute(sql.SQL("CREATE INDEX ON {} (row)").format(table.name))
        connection.execute(sql.SQL("CREATE TABLE {} (generation jsonb NOT NULL)").format(state))
        about = sql.Literal(f"TinyCLIP's index {index} below {store.root}")
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.name, about))
    return table


def write_state(connection: Connection, generation: Generation) -> None:
    """In the caller's transaction, if there is one."""
    state = sql.Identifier(state_name(table_id(generation)))
    with connection.transaction():
        connection.execute(sql.SQL("DELETE FROM {}").format(state))
        document = Jsonb(generation.model_dump(mode="json"))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(state), (document,))


def read_state(connection: Connection, generation: Generation, *, lock: bool = False) -> Generation:
    """What the tables of a generation hold now. Raises ValueError if they are gone."""
    state = sql.Identifier(state_name(table_id(generation)))
    query = sql.SQL("SELECT generation FROM {}{}").format(state, sql.SQL(" FOR UPDATE" if lock else ""))
    try:
        return Generation.model_validate(_only(connection.execute(query).fetchone()))
    except errors.UndefinedTable:
        way_out = "PUT the index again to build it anew"
        raise ValueError(f"the tables tinyclip_{table_id(generation)}… of index {generation.name} are gone; {way_out}") from None


def table_id(generation: Generation) -> str:
    return generation.segments[0].id


def drop_tables(store: Store, index: str, ids: Sequence[str]) -> None:
    """Drop tables, then forget that they were. Raises NoDatabase, and DatabaseAway where one is in use all the time."""
    with connected() as connection:
        for id in ids:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
                connection.execute(sql.SQL(drop_statement(id)))
            store.remove(index_table(index, id))


def key_of(id: str) -> uuid.UUID:
    """Of one size, however long the id is: no B-tree takes entries of more than a third of a page."""
    return uuid.UUID(bytes=blake2b(storable(id).encode(), digest_size=16).digest())


def _only(row: Any) -> Any:
    assert row is not None
    return row[0]
