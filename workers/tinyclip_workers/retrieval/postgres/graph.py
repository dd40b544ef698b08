"""Makes the graph of an index's table, and finds how wide it has to be searched.

As with hnswlib's graphs the recall is measured with rows that are not linked yet, since a query that is in the graph is too easy.
Shapes: N rows, Q queries, E embedding size, K hits.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from psycopg import sql
from tinyclip.schemas import IndexKind

from tinyclip_workers.retrieval.graph import WANTED_RECALL, Rows
from tinyclip_workers.retrieval.postgres.database import Connection, connected
from tinyclip_workers.retrieval.postgres.searching import WIDEST, walk
from tinyclip_workers.retrieval.postgres.table import Table
from tinyclip_workers.types import Matrix

log = logging.getLogger(__name__)

GRAPH_FROM = 10_000
"""Items from which `auto` means a graph: comparing all takes 15 ms a query there, at 512 dimensions."""
LINKS, BUILD_WIDTH = 16, 128
"""pgvector's m and ef_construction."""
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, WIDEST)
MOST_DIMENSIONS = 4000
"""Of a graph over half precision."""
LOOK_SECONDS = 2.0


def needs_graph(asked: IndexKind, count: int, embed_dim: int) -> bool:
    """Raises ValueError where a graph is asked for and cannot be had."""
    if asked == "hnsw" and embed_dim > MOST_DIMENSIONS:
        raise ValueError(f"pgvector has no graph over {embed_dim} dimensions, at most {MOST_DIMENSIONS}; build with kind: exact")
    return asked == "hnsw" or (asked == "auto" and count >= GRAPH_FROM and embed_dim <= MOST_DIMENSIONS)


def link(table: Table) -> list[str]:
    """Make the graph over what is in the table; what the database remarks."""
    remarks: list[str] = []
    query = sql.SQL("CREATE INDEX ON {} USING hnsw ((vector::halfvec({})) halfvec_ip_ops) WITH (m = {}, ef_construction = {})")
    table.connection.add_notice_handler(lambda notice: remarks.append(notice.message_primary or ""))
    table.connection.execute(query.format(table.name, *map(sql.Literal, (table.embed_dim, LINKS, BUILD_WIDTH))))
    return remarks


def link_aside(table: Table, on_progress: Callable[[float], None]) -> None:
    """Make the graph by another connection, and meanwhile tell which share of the rows is in it."""
    with connected() as maker:
        made: list[list[str] | Exception] = []
        thread = threading.Thread(target=lambda: made.append(_outcome(Table(maker, table.id, table.embed_dim))))
        thread.start()
        try:
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                on_progress(_share(table.connection, maker.info.backend_pid))
        finally:
            if thread.is_alive():
                maker.cancel_safe()
            thread.join()
    [outcome] = made
    if isinstance(outcome, Exception):
        raise outcome
    for remark in outcome:  # as that the graph does not fit into maintenance_work_mem
        log.warning("PostgreSQL remarks: %s", remark)


def find_width(table: Table, groups: Sequence[Matrix], truths: Sequence[Rows]) -> tuple[int, float | None]:
    """The narrowest search whose recall@10 is enough in every group of queries (Q, E), and that recall.

    Of the widest, if none is; null where nothing was asked. `truths` (Q, K) are the rows that should be found.
    """
    if not groups:
        return WIDTHS[0], None
    for ef in WIDTHS:
        recall = min(
            float(np.mean([_recall(table, query_E, rows_K, ef) for query_E, rows_K in zip(group, truth, strict=True)]))
            for group, truth in zip(groups, truths, strict=True)
        )
        if recall >= WANTED_RECALL:
            break
    log.info("searched %d wide, the graph finds %.1f%% of the ten nearest", ef, 100 * recall)
    return ef, recall


def best_rows(batches: Iterable[tuple[Matrix, Rows]], queries_QE: Matrix, count: int) -> Rows:
    """(Q, K) the rows with the largest products, in no order; of batches of vectors and their rows."""
    best_QK = np.empty((len(queries_QE), 0), np.float32)
    rows_QK = np.empty((len(queries_QE), 0), np.int64)
    for vectors_NE, rows in batches:
        best_QK = np.concatenate([best_QK, queries_QE @ vectors_NE.T], axis=1)
        rows_QK = np.concatenate([rows_QK, np.broadcast_to(rows, (len(queries_QE), len(rows)))], axis=1)
        if best_QK.shape[1] > count:
            kept = np.argpartition(-best_QK, count - 1, axis=1)[:, :count]
            best_QK, rows_QK = np.take_along_axis(best_QK, kept, 1), np.take_along_axis(rows_QK, kept, 1)
    return rows_QK


def _outcome(table: Table) -> list[str] | Exception:
    try:
        return link(table)
    except Exception as error:  # told by the thread that waits
        return error


def _share(connection: Connection, pid: int) -> float:
    query = "SELECT blocks_done::float8 / nullif(blocks_total, 0) FROM pg_stat_progress_create_index WHERE pid = %s"
    found = connection.execute(query, (pid,)).fetchone()
    return float(found[0] or 0.0) if found else 1.0


def _recall(table: Table, query_E: Matrix, truth_K: Rows, ef: int) -> float:
    found = [row.row for row in walk(table.connection, table.name, query_E, len(truth_K), ef)]
    return len(np.intersect1d(found, truth_K)) / len(truth_K)
