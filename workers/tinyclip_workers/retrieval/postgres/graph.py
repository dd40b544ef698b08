"""Create the graph of an index's table (pgvector's HNSW index), and choose its search width.

As for hnswlib, recall is measured with rows that are not in the graph yet, because a query that is in it is too easy.
Shapes: N rows, Q queries, E embedding size, K hits.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from psycopg import sql
from tinyclip.schemas import IndexKind

from tinyclip_workers.retrieval.graph import TARGET_RECALL, Rows
from tinyclip_workers.retrieval.postgres.database import Connection, job_connection
from tinyclip_workers.retrieval.postgres.queries import MAX_EF_SEARCH, search_graph
from tinyclip_workers.retrieval.postgres.table import Table
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
        try:
            while thread.is_alive():
                thread.join(PROGRESS_SECONDS)
                on_progress(_share_done(table.connection, connection.info.backend_pid))
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
    """Return the smallest ef that reaches the target recall in every group of queries (Q, E), else the largest; and the recall.

    `truths` (Q, K) are the rows that should be found. The recall is None without queries.
    """
    if not groups:
        return WIDTHS[0], None
    for ef in WIDTHS:
        recall = min(
            float(np.mean([_recall(table, query_E, rows_K, ef) for query_E, rows_K in zip(group, truth, strict=True)]))
            for group, truth in zip(groups, truths, strict=True)
        )
        if recall >= TARGET_RECALL:
            break
    log.info("recall@10 of the graph is %.1f%% at ef %d", 100 * recall, ef)
    return ef, recall


def nearest_rows(batches: Iterable[tuple[Matrix, Rows]], queries_QE: Matrix, count: int) -> Rows:
    """Return the (Q, K) rows with the largest products, unordered, among batches of vectors and their rows."""
    best_QK = np.empty((len(queries_QE), 0), np.float32)
    rows_QK = np.empty((len(queries_QE), 0), np.int64)
    for vectors_NE, rows in batches:
        best_QK = np.concatenate([best_QK, queries_QE @ vectors_NE.T], axis=1)
        rows_QK = np.concatenate([rows_QK, np.broadcast_to(rows, (len(queries_QE), len(rows)))], axis=1)
        if best_QK.shape[1] > count:
            kept = np.argpartition(-best_QK, count - 1, axis=1)[:, :count]
            best_QK, rows_QK = np.take_along_axis(best_QK, kept, 1), np.take_along_axis(rows_QK, kept, 1)
    return rows_QK


def _create_graph_or_error(table: Table) -> list[str] | Exception:
    try:
        return create_graph(table)
    except Exception as error:  # raised by the waiting thread
        return error


def _share_done(connection: Connection, pid: int) -> float:
    query = "SELECT blocks_done::float8 / nullif(blocks_total, 0) FROM pg_stat_progress_create_index WHERE pid = %s"
    found = connection.execute(query, (pid,)).fetchone()
    return float(found[0] or 0.0) if found else 1.0


def _recall(table: Table, query_E: Matrix, truth_K: Rows, ef: int) -> float:
    found = [row.row for row in search_graph(table.connection, table.name, query_E, len(truth_K), ef)]
    return len(np.intersect1d(found, truth_K)) / len(truth_K)
