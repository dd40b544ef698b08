"""Approximate nearest-neighbour search: HNSW graphs (Malkov and Yashunin 2018) by hnswlib, which holds the vectors in memory.

Shapes: N rows, Q queries, E embedding size, K hits.
"""

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tinyclip.schemas import IndexKind

from tinyclip_workers.retrieval.measuring import Measured, median_ms, sample_of
from tinyclip_workers.retrieval.recall import CHUNK, Rows, choose_ef, exact_rows
from tinyclip_workers.types import Matrix

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]

LINKS, BUILD_WIDTH = 16, 200
"""hnswlib's M and ef_construction."""
WIDTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Search widths (ef), tried in this order until the recall on the sample suffices."""
GRAPH_FROM = 100_000
"""Items from which `auto` builds graphs: an exact search takes 15 ms there, at 512 dimensions."""
SEGMENT_GRAPH_FROM = 10_000
"""Rows below which a segment has no graph, in an index of kind `auto`."""
BYTES_PER_ROW = 2 * LINKS * 4 + 20
"""Memory per row in addition to its vector."""
INSTALL_HINT = "hnswlib is not installed; pip install 'tinyclip[hnsw]' (it needs a C++ compiler) where jobs and deployments run"


def available() -> bool:
    """Return whether hnswlib is installed."""
    return find_spec("hnswlib") is not None


def needs_graph(requested: IndexKind, index_count: int, rows: int) -> bool:
    """Return whether a segment of `rows` rows gets a graph, in an index of `index_count` items."""
    if requested == "auto":
        return available() and index_count >= GRAPH_FROM and rows >= SEGMENT_GRAPH_FROM
    return requested == "hnsw"


def write_graph(
    vectors_NE: Matrix,
    path: Path,
    queries_QE: Matrix | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Link the rows and save the graph durably. Takes about 0.5 ms of CPU per row at 512 dimensions.

    Returns the search width (ef) that reaches the target recall@10, that recall, and the cost. It is measured with rows that are
    not linked yet, because a query that is in the graph is too easy. `queries_QE` are further queries; the lower recall counts.
    """
    count, embed_dim = vectors_NE.shape
    index = _empty_graph(embed_dim)
    index.init_index(max_elements=count, M=LINKS, ef_construction=BUILD_WIDTH, random_seed=0)
    held_out = sample_of(count)
    others = np.setdiff1d(np.arange(count), held_out)
    for start in range(0, len(others), CHUNK):
        _link(index, vectors_NE, others[start : start + CHUNK])
        on_progress(min(start + CHUNK, len(others)))
    groups = [group for group in (vectors_NE[held_out], queries_QE) if group is not None and len(group)]
    truths = [exact_rows(vectors_NE, group, min(10, len(others)), among=others) for group in groups]

    def search(query_E: Matrix, count: int, ef: int) -> Rows | None:
        index.set_ef(ef)
        found = _nearest(index, query_E, {"k": count})
        return None if found is None else found[0]

    ef, recall = choose_ef(WIDTHS, groups, truths, search)
    index.set_ef(ef)
    search_ms = median_ms(lambda query_E: _nearest(index, query_E, {"k": min(10, len(others))}), groups[0]) if groups else None
    _link(index, vectors_NE, held_out)
    index.save_index(str(path))
    return Measured(ef, recall, search_ms)


def _link(index: Any, vectors_NE: Matrix, rows: Rows) -> None:
    if len(rows):
        index.add_items(np.ascontiguousarray(vectors_NE[rows]), rows, num_threads=len(os.sched_getaffinity(0)))


def _nearest(index: Any, query_E: Matrix, options: dict[str, Any]) -> tuple[Rows, Matrix] | None:
    """Return rows and cosines, nearest first; None if the graph reaches fewer."""
    try:
        labels_1K, distances_1K = index.knn_query(query_E, num_threads=1, **options)
    except RuntimeError as error:
        if "contiguous 2D array" not in str(error):
            raise
        return None
    return labels_1K[0].astype(np.int64), 1 - distances_1K[0]


class Graph:
    """A saved graph in memory. Thread-safe for searching."""

    def __init__(self, path: Path, embed_dim: int, ef: int) -> None:
        """Raises FileNotFoundError, and ValueError if hnswlib is not installed."""
        self._index = _empty_graph(embed_dim)
        if not path.is_file():
            raise FileNotFoundError(path)
        self._index.load_index(str(path))
        self._index.set_ef(ef)

    def nearest(self, query_E: Matrix, count: int, allowed_N: Mask | None = None) -> tuple[Rows, Matrix] | None:
        """Return rows and cosines, nearest first; None if the graph reaches fewer rows (of those allowed)."""
        options: dict[str, Any] = {"k": count}
        if allowed_N is not None:
            options["filter"] = allowed_N.tobytes().__getitem__  # called per visited row; bytes are faster than an array
        return _nearest(self._index, query_E, options)


def _empty_graph(embed_dim: int) -> Any:
    """Raises ValueError if hnswlib is not installed."""
    try:
        import hnswlib  # an extra: it has no wheels, so not every machine can install it
    except ImportError as error:
        raise ValueError(INSTALL_HINT) from error
    return hnswlib.Index(space="ip", dim=embed_dim)
