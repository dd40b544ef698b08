"""The search statements: through pgvector's HNSW index (the graph), or exact, by comparison with every item.

The graph is over vectors in half precision, which halves its size; its results are reranked in full precision.
Shapes: E embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from tinyclip.filters import Condition

from tinyclip_workers.retrieval.postgres.conditions import where_clause
from tinyclip_workers.retrieval.postgres.database import Connection
from tinyclip_workers.types import Matrix

MAX_EF_SEARCH = 1000
"""The largest hnsw.ef_search of pgvector."""
RERANK_FACTOR, FILTERED_RERANK_FACTOR = 2, 5
"""How many times `top_k` candidates are reranked in full precision; more with a filter, for its recall."""
FILTERED_EF_FACTOR = 2
"""How much larger ef is with a filter: the items that meet it are further from the query."""

_PREFER_GRAPH = (
    "SELECT set_config('hnsw.ef_search', %s, true), set_config('enable_seqscan', 'off', true),"
    " set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"
)
"""Settings of one transaction: the planner's cost estimates do not know how many items meet the filter."""


@dataclass(frozen=True)
class Row:
    """A hit."""

    row: int
    id: str
    score: float
    metadata: str


def search_graph(
    connection: Connection, table: sql.Identifier, query_E: Matrix, top_k: int, ef: int, conditions: Sequence[Condition] = ()
) -> list[Row]:
    """Search the graph until enough items are found; return fewer if it stops earlier (hnsw.max_scan_tuples)."""
    condition, parameters = where_clause(conditions)
    candidates = (FILTERED_RERANK_FACTOR if conditions else RERANK_FACTOR) * top_k
    ef_search = max(FILTERED_EF_FACTOR * ef if conditions else ef, candidates)
    half = sql.SQL("halfvec({})").format(sql.Literal(len(query_E)))
    query = sql.SQL(
        "WITH near AS MATERIALIZED (SELECT row, id, metadata, vector FROM {table} WHERE {condition}"
        " ORDER BY vector::{half} <#> %s::vector::{half} LIMIT %s)"
        " SELECT row, id, -(vector <#> %s) AS score, metadata FROM near ORDER BY vector <#> %s, row LIMIT %s"
    ).format(table=table, condition=sql.SQL(condition), half=half)
    arguments = (*parameters, query_E, candidates, query_E, query_E, top_k)
    with connection.pipeline(), connection.transaction():
        connection.execute(_PREFER_GRAPH, (str(min(MAX_EF_SEARCH, ef_search)),))
        cursor = connection.execute(query, arguments, binary=True)
    return _rows(cursor)


def search_exact(
    connection: Connection, table: sql.Identifier, query_E: Matrix, top_k: int, conditions: Sequence[Condition] = ()
) -> list[Row]:
    """Compare every item that meets the conditions; items with equal scores are in the order of the index."""
    condition, parameters = where_clause(conditions)
    query = sql.SQL(
        "SELECT row, id, -distance AS score, metadata FROM"
        " (SELECT row, id, metadata, (vector <#> %s) + 0 AS distance FROM {table} WHERE {condition}) AS all_items"
        " ORDER BY distance, row LIMIT %s"
    ).format(table=table, condition=sql.SQL(condition))
    return _rows(connection.execute(query, (query_E, *parameters, top_k), binary=True))


def count_up_to(connection: Connection, table: sql.Identifier, conditions: Sequence[Condition], most: int) -> int:
    """Count the items that meet the conditions, up to `most`."""
    condition, parameters = where_clause(conditions)
    query = sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT %s) AS met").format(
        table=table, condition=sql.SQL(condition)
    )
    [count] = connection.execute(query, (*parameters, most)).fetchone() or (0,)
    return int(count)


def _rows(cursor: Any) -> list[Row]:
    return [Row(*found) for found in cursor.fetchall()]
