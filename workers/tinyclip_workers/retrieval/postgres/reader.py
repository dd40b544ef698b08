"""Search an index in PostgreSQL. A replica holds only a few connections. Shapes: E embedding size."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import errors, sql
from tinyclip.filters import Condition
from tinyclip.index_database import pictures_name, shards_name, table_name
from tinyclip.schemas import Hit

from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.pictures import Picture
from tinyclip_workers.retrieval.postgres.conditions import unescape_text
from tinyclip_workers.retrieval.postgres.database import Connection, ReplicaPool, shared_pool
from tinyclip_workers.retrieval.postgres.pictures import READ_COLUMNS, has_pictures, parse_picture
from tinyclip_workers.retrieval.postgres.queries import Row, count_up_to, search_exact, search_graph
from tinyclip_workers.retrieval.postgres.table import primary_key
from tinyclip_workers.retrieval.reader import GenerationRemoved, SearchResult, parse_hits
from tinyclip_workers.types import Matrix

MAX_CACHED_FILTERS = 64
"""Filters whose selectivity is cached."""
FILTERED_STEP_COST = 3
"""Cost of one step of a filtered graph search, in compared items. With this value the cheaper search was chosen among 20,000 and
100,000 items, with filters met by a half, a tenth and a hundredth of them (bench/pgvector.py)."""


@dataclass(frozen=True)
class StoredItem:
    """An item as its tables hold it."""

    metadata: str
    """As JSON."""
    picture: Picture | None
    has_pictures: bool
    """False if an older version has built the index, so that no image is known."""


class PostgresReader:
    """A generation of an index. A search returns the current content of its tables, which may be a newer generation."""

    def __init__(self, generation: Generation, pool: ReplicaPool | None = None) -> None:
        """Raises DatabaseNotUsable."""
        self.generation = generation
        [self._info] = generation.segments
        self._table = sql.Identifier(table_name(self._info.id))
        self._picture_tables = pictures_name(self._info.id), shards_name(self._info.id)
        self._has_pictures: bool | None = None
        self._pool = pool or shared_pool()
        self._graph_is_cheaper: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def nearest(self, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()) -> SearchResult:
        """See `IndexReader.nearest`."""
        with self._connection() as connection:
            if self._info.kind == "hnsw" and (not conditions or self._prefer_graph(connection, conditions)):
                rows = search_graph(connection, self._table, query_E, top_k, self._info.ef, conditions)
                if len(rows) == top_k:  # else the search ended early, or there are no more
                    return SearchResult(_hits(rows), "hnsw")
            return SearchResult(_hits(search_exact(connection, self._table, query_E, top_k, conditions)), "exact")

    def vector(self, id: str) -> Matrix | None:
        """See `IndexReader.vector`."""
        found = self._column("vector", id)
        return None if found is None else np.asarray(found.to_numpy(), np.float32)

    def item(self, id: str) -> StoredItem | None:
        """Return an item's metadata and picture; None if there is no such item. Raises as `vector`."""
        with self._connection() as connection:
            if self._has_pictures is None:
                self._has_pictures = has_pictures(connection, self._info.id)
            if not self._has_pictures:
                query = sql.SQL("SELECT metadata FROM {} WHERE key = %s").format(self._table)
            else:
                query = sql.SQL(
                    "SELECT metadata, {} FROM {} AS items LEFT JOIN {} AS pictures USING (key)"
                    " LEFT JOIN {} AS shards ON shards.id = pictures.shard WHERE key = %s"
                ).format(sql.SQL(READ_COLUMNS), self._table, *map(sql.Identifier, self._picture_tables))
            found = connection.execute(query, (primary_key(id),), binary=True).fetchone()
        if found is None:
            return None
        return StoredItem(found[0], parse_picture(found[1:]) if self._has_pictures else None, self._has_pictures)

    def _column(self, name: str, id: str) -> Any:
        query = sql.SQL("SELECT {} FROM {} WHERE key = %s").format(sql.Identifier(name), self._table)
        with self._connection() as connection:
            found = connection.execute(query, (primary_key(id),), binary=True).fetchone()
        return None if found is None else found[0]

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._pool.connection() as connection:
                yield connection
        except errors.UndefinedTable as error:
            raise GenerationRemoved(f"the tables of index {self.generation.name} no longer exist") from error

    def _prefer_graph(self, connection: Connection, conditions: Sequence[Condition]) -> bool:
        """Return whether so many items meet a filter that searching the graph, which visits the others too, is cheaper."""
        key = repr(conditions)  # to Python, 0 and False are the same condition
        with self._lock:
            known = self._graph_is_cheaper.get(key)
        if known is None:
            most = int((FILTERED_STEP_COST * self._info.ef * self._info.count) ** 0.5) + 1
            known = count_up_to(connection, self._table, conditions, most) >= most
            with self._lock:
                self._graph_is_cheaper[key] = known
                while len(self._graph_is_cheaper) > MAX_CACHED_FILTERS:
                    self._graph_is_cheaper.popitem(last=False)
        return known


def _hits(rows: Sequence[Row]) -> list[Hit]:
    return parse_hits((unescape_text(row.id), row.score, row.metadata) for row in rows)
