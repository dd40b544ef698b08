"""Exact nearest rows, and the choice of a graph's search width by its recall against them.

Shapes: N rows, Q queries, E embedding size, K nearest rows.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from tinyclip_workers.types import Matrix

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]

TARGET_RECALL = 0.97
"""Recall@10 on the sample at build time: above the promised 0.95, because later queries differ from the sample."""
RECALL_QUERIES = 200
"""Queries that recall is measured with."""
CHUNK = 10_000


def choose_ef(
    widths: Sequence[int],
    groups: Sequence[Matrix],
    truths: Sequence[Rows],
    search: Callable[[Matrix, int, int], Rows | None],
    *,
    target: float = TARGET_RECALL,
) -> tuple[int, float | None]:
    """Return the first width (ef) that reaches the target recall in every group of queries (Q, E), else the last; and the recall.

    `truths` (Q, K) are the rows to find; `search(query_E, count, ef)` returns the rows that are found, or None if they are fewer
    than `count`. The recall is None without queries.
    """
    if not groups:
        return widths[0], None
    for ef in widths:
        recall = min(_mean_recall(group, truth, search, ef) for group, truth in zip(groups, truths, strict=True))
        if recall >= target:
            break
    log.info("recall@10 is %.1f%% at ef %d", 100 * recall, ef)
    return ef, recall


def _mean_recall(queries_QE: Matrix, truth_QK: Rows, search: Callable[[Matrix, int, int], Rows | None], ef: int) -> float:
    shares = []
    for query_E, truth_K in zip(queries_QE, truth_QK, strict=True):
        found = search(query_E, len(truth_K), ef)
        shares.append(0.0 if found is None else len(np.intersect1d(found, truth_K)) / len(truth_K))
    return float(np.mean(shares))


def exact_rows(vectors_NE: Matrix, queries_QE: Matrix, count: int, among: Rows | None = None) -> Rows:
    """Return the (Q, K) rows with the largest products, unordered, among all rows or those given."""
    rows = np.arange(len(vectors_NE)) if among is None else among
    chunks = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return nearest_rows(((vectors_NE[chunk], chunk) for chunk in chunks), queries_QE, count)


def nearest_rows(batches: Iterable[tuple[Matrix, Rows]], queries_QE: Matrix, count: int) -> Rows:
    """Return the (Q, K) rows with the largest products, unordered, among batches of vectors and their rows."""
    best_QK = np.empty((len(queries_QE), 0), np.float32)
    rows_QK = np.empty((len(queries_QE), 0), np.int64)
    for vectors_NE, rows in batches:
        best_QK = np.hstack([best_QK, queries_QE @ vectors_NE.T])
        rows_QK = np.hstack([rows_QK, np.broadcast_to(rows, (len(queries_QE), len(rows)))])
        if best_QK.shape[1] > count:
            kept = np.argpartition(-best_QK, count - 1, axis=1)[:, :count]
            best_QK, rows_QK = np.take_along_axis(best_QK, kept, 1), np.take_along_axis(rows_QK, kept, 1)
    return rows_QK
