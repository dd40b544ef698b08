"""Both ways to search an index's table: through pgvector's graph (HNSW), or compared with every item.

The graph is over vectors in half precision, which halves it; what it finds is compared again in full. Shapes: E embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from tinyclip.filters import Condition

from tinyclip_workers.retrieval.postgres.conditions import where
from tinyclip_workers.retrieval.postgres.database import Connection
from tinyclip_workers.types import Matrix

WIDEST = 1000
"""What pgvector takes as hnsw.ef_search."""
AGAIN, AGAIN_FILTERED = 2, 5
"""Times as many items as asked for are taken from the graph, to be compared in full; with a filter more, for its recall."""
FILTERED_WIDTH = 2
"""How much wider the graph is searched with a filter: what is left of the items lies further from the query."""

ToGraph = (
    "SELECT set_config('hnsw.ef_search', %s, true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"
)
"""Until the transaction's end. The planner reckons with costs, and not with what we know of the filter."""


@dataclass(frozen=True)
class Row:
    """An item that was found."""

    row: int
    id: str
    score: float
    metadata: str


def walk(
    connection: Connection, table: sql.Identifier, query_E: Matrix, top_k: int, ef: int, conditions: Sequence[Condition] = ()
) -> list[Row]:
    """Through the graph, as far as it takes to meet so many; fewer where the walk ends before (hnsw.max_scan_tuples)."""
    condition, parameters = where(conditions)
    taken = (AGAIN_FILTERED if conditions else AGAIN) * top_k
    width = max(FILTERED_WIDTH * ef if conditions else ef, taken)
    half = sql.SQL("halfvec({})").format(sql.Literal(len(query_E)))
    query = sql.SQL(
        "WITH near AS MATERIALIZED (SELECT row, id, metadata, vector FROM {table} WHERE {condition}"
        " ORDER BY vector::{half} <#> %s::vector::{half} LIMIT %s)"
        " SELECT row, id, -(vector <#> %s) AS score, metadata FROM near ORDER BY vector <#> %s, row LIMIT %s"
    ).format(table=table, condition=sql.SQL(condition), half=half)
    given = (*parameters, query_E, taken, query_E, query_E, top_k)
    with connection.pipeline(), connection.transaction():
        connection.execute(ToGraph, (str(min(WIDEST, width)),))
        cursor = connection.execute(query, given, binary=True)
    return _rows(cursor)


def compare_all(
    connection: Connection, table: sql.Identifier, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()
) -> list[Row]:
    """Every item that meets the conditions; equally good ones in the order of the index."""
    condition, parameters = where(conditions)
    query = sql.SQL(
        "SELECT row, id, -distance AS score, metadata FROM"
        " (SELECT row, id, metadata, (vector <#> %s) + 0 AS distance FROM {table} WHERE {condition}) AS all_items"
        " ORDER BY distance, row LIMIT %s"
    ).format(table=table, condition=sql.SQL(condition))
    return _rows(connection.execute(query, (query_E, *parameters, top_k), binary=True))


def count_up_to(connection: Connection, table: sql.Identifier, conditions: Sequence[Condition], most: int) -> int:
    """Items that meet the conditions; counting ends at `most`."""
    condition, parameters = where(conditions)
    query = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT %s) AS met").format(
        table=table, condition=sql.SQL(condition)
    )
    [count] = connection.execute(query, (*parameters, most)).fetchone() or (0,)
    return int(count)


def _rows(cursor: Any) -> list[Row]:
    return [Row(*found) for found in cursor.fetchall()]
