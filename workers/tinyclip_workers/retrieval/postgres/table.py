"""The two tables of an index in PostgreSQL: its items, and the state, a single row with their generation.

A change is one transaction and a search is one statement, so a search sees all of a change or nothing of it. Before the tables of
an index are created, a marker in the artifacts store names them:

indexes/<name>/tables/<id>      `tinyclip_<id>` and `tinyclip_<id>_state` belong to this index, whether they exist yet or not

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
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.index_database import drop_statement, state_name, table_name
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.pictures import Picture
from tinyclip_workers.retrieval.postgres.conditions import escape_text, filter_fields
from tinyclip_workers.retrieval.postgres.database import Connection, job_connection
from tinyclip_workers.retrieval.postgres.pictures import PictureTables
from tinyclip_workers.retrieval.segment_writer import encodable
from tinyclip_workers.types import Matrix

INLINE_DIMENSIONS = 960
"""Vectors up to this size are stored in the rows themselves, two or more per page: exact search is then four times as fast."""
LOCK_TIMEOUT = "2s"
"""How long dropping a table waits for its lock, which blocks new searches; a table in use is dropped another time."""
KEYS_PER_STATEMENT = 10_000

_COLUMNS = ("row", "key", "id", "metadata", "fields", "vector")
_TYPES = ("int8", "uuid", "text", "text", "jsonb", "vector")

Item = tuple[str, JSON]
"""Id and metadata."""


class Table:
    """The table of an index's items, on a connection."""

    def __init__(self, connection: Connection, id: str, embed_dim: int) -> None:
        self.connection, self.id, self.embed_dim = connection, id, embed_dim
        self.name = sql.Identifier(table_name(id))
        self.pictures = PictureTables(connection, id)

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Return the ids that the table contains."""
        keys = {primary_key(id): id for id in ids}
        query = sql.SQL("SELECT key FROM {} WHERE key = ANY(%s)").format(self.name)
        return {keys[key] for (key,) in self.connection.execute(query, (list(keys),))}

    def remove(self, ids: Sequence[str]) -> int:
        """Delete items and their pictures; return how many items existed."""
        query = sql.SQL("DELETE FROM {} WHERE key = ANY(%s)").format(self.name)
        keys, existed = [primary_key(id) for id in ids], 0
        for start in range(0, len(keys), KEYS_PER_STATEMENT):
            some = keys[start : start + KEYS_PER_STATEMENT]
            existed += self.connection.execute(query, (some,)).rowcount
            self.pictures.remove(some)
        return existed

    def add(
        self, vectors_NE: Matrix, items: Sequence[Item], rows: Sequence[int], pictures: Sequence[Picture | None] = ()
    ) -> None:
        """Insert items with new ids, and their pictures, if there are any; `rows` orders items with equal scores."""
        assert vectors_NE.shape == (len(items), self.embed_dim), (vectors_NE.shape, len(items), self.embed_dim)
        columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self.name, columns)
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for row, (id, metadata), vector_E in zip(rows, items, vectors_NE, strict=True):
                document = encodable(json.dumps(metadata, ensure_ascii=False))
                copy.write_row((row, primary_key(id), escape_text(id), document, Jsonb(filter_fields(metadata)), vector_E))
        if any(picture is not None for picture in pictures):
            self.pictures.add([primary_key(id) for id, _ in items], pictures)

    def next_row(self) -> int:
        """Return a row number above all existing ones."""
        query = sql.SQL("SELECT coalesce(max(row), -1) + 1 FROM {}").format(self.name)
        return int(_scalar(self.connection.execute(query).fetchone()))


def create_table(store: ArtifactsStore, connection: Connection, index: str, embed_dim: int) -> Table:
    """Create the empty tables of an index, after their marker in the store."""
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
        table.pictures.create()
        about = sql.Literal(f"TinyCLIP's index {index} below {store.root}")
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table.name, about))
    return table


def write_state(connection: Connection, generation: Generation) -> None:
    """Store a generation as the state of its tables, in the caller's transaction if there is one."""
    state = sql.Identifier(state_name(table_id(generation)))
    with connection.transaction():
        connection.execute(sql.SQL("DELETE FROM {}").format(state))
        document = Jsonb(generation.model_dump(mode="json"))
        connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(state), (document,))


def read_state(connection: Connection, generation: Generation, *, lock: bool = False) -> Generation:
    """Return the current generation in the tables of `generation`. Raises ValueError if they no longer exist."""
    state = sql.Identifier(state_name(table_id(generation)))
    query = sql.SQL("SELECT generation FROM {}{}").format(state, sql.SQL(" FOR UPDATE" if lock else ""))
    try:
        return Generation.model_validate(_scalar(connection.execute(query).fetchone()))
    except errors.UndefinedTable:
        tables = f"the tables tinyclip_{table_id(generation)}… of index {generation.name}"
        raise ValueError(f"{tables} no longer exist; PUT the index again to rebuild it") from None


def table_id(generation: Generation) -> str:
    return generation.segments[0].id


def drop_tables(store: ArtifactsStore, index: str, ids: Sequence[str]) -> None:
    """Drop tables, then remove their markers. Raises DatabaseNotUsable, and DatabaseUnavailable if a table stays in use."""
    with job_connection() as connection:
        for id in ids:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                connection.execute(sql.SQL(drop_statement(id)))
            store.remove(index_table(index, id))


def primary_key(id: str) -> uuid.UUID:
    """Return a key of fixed size: a B-tree accepts no entries larger than a third of a page."""
    return uuid.UUID(bytes=blake2b(encodable(id).encode(), digest_size=16).digest())


def _scalar(row: Any) -> Any:
    assert row is not None
    return row[0]
