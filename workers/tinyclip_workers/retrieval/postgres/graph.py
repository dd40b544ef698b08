"""Create the graph of an index's table (pgvector's HNSW index), and choose its search width.

As for hnswlib, recall is measured with rows that are not in the graph yet, because a query that is in it is too easy.
Shapes: Q queries, E embedding size, K nearest rows.
"""

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
from psycopg import sql
from tinyclip.schemas import IndexKind

from tinyclip_workers.retrieval import recall
from tinyclip_workers.retrieval.postgres.database import Connection, job_connection
from tinyclip_workers.retrieval.postgres.queries import MAX_EF_SEARCH, search_graph
from tinyclip_workers.retrieval.postgres.table import Table
from tinyclip_workers.retrieval.recall import Rows
from tinyclip_workers.types import Matrix

log = logging.getLogger(__name__)

GRAPH_FROM = 10_000
"""Items from which `auto` builds a graph: an exact search takes 15 ms there, at 512 dimensions."""
LINKS, BUILD_WIDTH = 16, 128
"""pgvector's m and ef_construction."""
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, MAX_EF_SEARCH)
"""Search widths (ef), tried in this order until the recall on the sample suffices."""
MAX_DIMENSIONS = 4000
"""Of a graph in half precision."""
PROGRESS_SECONDS = 2.0


def needs_graph(kind: IndexKind, count: int, embed_dim: int) -> bool:
    """Return whether an index of `count` items gets a graph. Raises ValueError if it is required and impossible."""
    if kind == "hnsw" and embed_dim > MAX_DIMENSIONS:
        limit = f"pgvector's graphs have at most {MAX_DIMENSIONS} dimensions"
        raise ValueError(f"the embeddings have {embed_dim} dimensions and {limit}; build with kind: exact")
    return kind == "hnsw" or (kind == "auto" and count >= GRAPH_FROM and embed_dim <= MAX_DIMENSIONS)


def create_graph(table: Table) -> list[str]:
    """Create the graph over the table's rows; return the notices of the database."""
    notices: list[str] = []
    query = sql.SQL("CREATE INDEX ON {} USING hnsw ((vector::halfvec({})) halfvec_ip_ops) WITH (m = {}, ef_construction = {})")
    table.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    table.connection.execute(query.format(table.name, *map(sql.Literal, (table.embed_dim, LINKS, BUILD_WIDTH))))
    return notices


def create_graph_in_background(table: Table, on_progress: Callable[[float], None]) -> None:
    """Create the graph on a second connection and report the share of rows in it until it is complete."""
    with job_connection() as connection:
        outcomes: list[list[str] | Exception] = []
        target = Table(connection, table.id, table.embed_dim)
        thread = threading.Thread(target=lambda: outcomes.append(_create_graph_or_error(target)))
        thread.start()
        done = None
        try:
            while thread.is_alive():
                thread.join(PROGRESS_SECONDS)
                before, done = done, _share_done(table.connection, connection.info.backend_pid)
                if done != before:  # a sign of progress must not come from one that hangs
                    on_progress(done)
        finally:
            if thread.is_alive():
                connection.cancel_safe()
            thread.join()
    [outcome] = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    for notice in outcome:  # for example that the graph does not fit into maintenance_work_mem
        log.warning("PostgreSQL: %s", notice)


def choose_ef(table: Table, groups: Sequence[Matrix], truths: Sequence[Rows]) -> tuple[int, float | None]:
    """Choose the search width of a table's graph; see `recall.choose_ef`."""

    def search(query_E: Matrix, count: int, ef: int) -> Rows:
        return np.array([hit.row for hit in search_graph(table.connection, table.name, query_E, count, ef)], np.int64)

    return recall.choose_ef(WIDTHS, groups, truths, search)


def _create_graph_or_error(table: Table) -> list[str] | Exception:
    try:
        return create_graph(table)
    except Exception as error:  # raised by the waiting thread
        return error


def _share_done(connection: Connection, pid: int) -> float:
    query = "SELECT blocks_done::float8 / nullif(blocks_total, 0) FROM pg_stat_progress_create_index WHERE pid = %s"
    found = connection.execute(query, (pid,)).fetchone()
    return float(found[0] or 0.0) if found else 1.0
