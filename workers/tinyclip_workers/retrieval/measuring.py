"""Recall and cost of a segment's search, measured when it is written.

Shapes: N rows, Q queries, E numbers of a vector.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tinyclip_workers.retrieval.codes import WIDTHS, BinaryVectors, Vectors
from tinyclip_workers.retrieval.recall import RECALL_QUERIES, Rows, choose_ef, exact_rows
from tinyclip_workers.types import Matrix

TIMED_QUERIES = 20
CODES_RECALL = 0.99
"""Recall@10 of binary codes on the sample from which on no more candidates are compared again: they are cheap."""


class Measured(NamedTuple):
    """Recall and cost of a search for ten rows."""

    width: int
    """Search width of a graph, or candidates of binary codes; 0 for others."""
    recall: float | None
    """None: exact, or there was nothing to measure with."""
    search_ms: float | None


def sample_of(count: int) -> Rows:
    """Return rows to use as queries, a tenth of all at most."""
    return np.sort(np.random.default_rng(0).choice(count, min(RECALL_QUERIES, count // 10), replace=False))


def median_ms(search: Callable[[Matrix], object], queries_QE: Matrix) -> float | None:
    """Return the median CPU time of a search in milliseconds; None without queries."""
    times = []
    for query_E in queries_QE[:TIMED_QUERIES]:
        start = time.thread_time()
        search(query_E)
        times.append(1000 * (time.thread_time() - start))
    return float(np.median(times)) if times else None


def measure_codes(vectors: Vectors, floats_NE: Matrix, queries_QE: Matrix | None) -> Measured:
    """Compare a search in codes with an exact one in the floats that they stand for; chooses the width of binary codes.

    Queries are rows, which are not among the candidates then, and further ones; the lower recall counts.
    """
    held_out = sample_of(vectors.count)
    others = np.setdiff1d(np.arange(vectors.count), held_out)
    groups = [group for group in (floats_NE[held_out], queries_QE) if group is not None and len(group)]
    count = min(10, len(others))
    truths = [exact_rows(floats_NE, group, count, among=others) for group in groups]

    def search(query_E: Matrix, count: int, width: int) -> Rows:
        if isinstance(vectors, BinaryVectors):
            vectors.width = width
        return vectors.nearest(query_E, count, removed=held_out)[0]

    widths = WIDTHS if isinstance(vectors, BinaryVectors) else (0,)
    width, recall = choose_ef(widths, groups, truths, search, target=CODES_RECALL)
    return Measured(width, recall, median_search_ms(vectors, groups))


def median_search_ms(vectors: Vectors, groups: Sequence[Matrix]) -> float | None:
    """Return the median CPU time of searching all vectors for ten."""
    count = min(10, vectors.count)
    return median_ms(lambda query_E: vectors.nearest(query_E, count), groups[0]) if groups else None
