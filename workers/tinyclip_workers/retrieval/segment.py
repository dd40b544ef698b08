"""One segment, opened for searching: vectors stay on disk and are mapped, items are looked up by row.

Shapes: N rows, E embedding size, K hits.
"""

import json
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tinyclip.filters import BOUNDS, Condition, Scalar
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval.files import GRAPH, ITEMS, VECTORS, Kind, SegmentInfo
from tinyclip_workers.retrieval.graph import Graph, Mask, Rows
from tinyclip_workers.retrieval.segment_writer import stored
from tinyclip_workers.types import Matrix

MOST_MASKS = 16
"""Filters whose rows are remembered."""
FILTERED_STEP_COST = 10
"""What one step of a filtered walk through the graph costs, in rows compared exactly (5 us against 0.5 us were measured)."""

MAPPED = 1 << 40
"""Bytes of the items that are mapped rather than read piece by piece: all."""

Dead = npt.NDArray[np.int64]
"""Sorted row numbers."""
NOBODY: Dead = np.empty(0, np.int64)


@dataclass(frozen=True)
class Best:
    """The rows of one segment nearest to a query, nearest first, equal ones in order."""

    rows: Rows
    scores: Matrix
    kind: Kind
    """How they were found."""


class Segment:
    """Files of a segment. Which of its rows are dead is the business of the generation that has it, so it is told each time."""

    def __init__(self, folder: Path, info: SegmentInfo, embed_dim: int) -> None:
        self.id, self.count, self.ef = info.id, info.count, info.ef
        self.vectors_NE: Matrix = np.load(folder / VECTORS, mmap_mode="r")
        self._items = _opened(folder / ITEMS)
        self._items.execute(f"PRAGMA mmap_size = {MAPPED}")
        self._paths = dict(self._items.execute("SELECT path, id FROM paths").fetchall())
        weakref.finalize(self, self._items.close)
        self._lock = threading.Lock()
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        linked = info.kind == "hnsw" and graphs.available()
        if info.kind == "hnsw" and not linked:
            graphs.log.warning("segment %s is searched exactly, which is slow: %s", self.id, graphs.WAY_OUT)
        self.graph = Graph(folder / GRAPH, embed_dim, info.ef) if linked else None

    @property
    def memory(self) -> int:
        """Bytes that an open segment holds; mapped vectors do not count."""
        return 0 if self.graph is None else self.count * (4 * self.vectors_NE.shape[1] + graphs.BYTES_A_ROW)

    def nearest(self, query_E: Matrix, top_k: int, dead: Dead = NOBODY, conditions: Sequence[Condition] = ()) -> Best:
        """The living rows that meet all conditions and have the largest cosine."""
        allowed_N = self.allowed(conditions, dead) if conditions else None
        living = self.count - len(dead) if allowed_N is None else int(allowed_N.sum())
        top_k = min(top_k, living)
        if top_k == 0:
            return Best(NOBODY, np.empty(0, np.float32), "exact")
        if self.graph is not None and (allowed_N is None or living**2 > FILTERED_STEP_COST * self.ef * self.count):
            found = self._walk(query_E, top_k, dead, allowed_N)
            if found is not None:
                return Best(*found, "hnsw")
        return Best(*self._compare_all(query_E, top_k, dead, allowed_N), "exact")

    def allowed(self, conditions: Sequence[Condition], dead: Dead = NOBODY) -> Mask:
        """(N,) the living rows whose metadata meets every condition."""
        allowed_N: Mask = np.ones(self.count, np.bool_)
        for condition in conditions:
            allowed_N &= self._mask(condition)
        allowed_N[dead] = False
        return allowed_N

    def items(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Row -> id and metadata as JSON."""
        marks = ",".join("?" * len(rows))
        with self._lock:
            found = self._items.execute(f"SELECT row, id, metadata FROM items WHERE row IN ({marks})", rows).fetchall()
        return {row: (id, metadata) for row, id, metadata in found}

    def documents(self, rows: Sequence[int]) -> list[tuple[str, JSON]]:
        """Id and metadata of rows, in the order asked; so many rows as SQLite takes in one question."""
        found = self.items(rows)
        return [(found[row][0], json.loads(found[row][1])) for row in rows]

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Rows of the items with these ids; ids that are not here have none."""
        with self._lock:
            found = [self._items.execute("SELECT row FROM items WHERE id = ?", (id,)).fetchone() for id in ids]
        return np.array([row[0] for row in found if row is not None], np.int64)

    def _walk(self, query_E: Matrix, top_k: int, dead: Dead, allowed_N: Mask | None) -> tuple[Rows, Matrix] | None:
        """Through the graph. Dead rows lead on like others and are left out afterwards, so more are asked for."""
        assert self.graph is not None
        wanted = top_k if allowed_N is not None or not len(dead) else min(self.count, 2 * top_k)
        while True:
            found = self.graph.nearest(query_E, wanted, allowed_N)
            if found is None or allowed_N is not None or not len(dead):
                return found
            rows, scores = found
            alive = dead[np.minimum(np.searchsorted(dead, rows), len(dead) - 1)] != rows
            if alive.sum() >= top_k:
                return rows[alive][:top_k], scores[alive][:top_k]
            if wanted >= self.count:
                return None
            wanted = min(self.count, 4 * wanted)

    def _compare_all(self, query_E: Matrix, top_k: int, dead: Dead, allowed_N: Mask | None) -> tuple[Rows, Matrix]:
        if allowed_N is not None:
            candidates: Rows = np.flatnonzero(allowed_N)
            scores = self.vectors_NE[candidates] @ query_E
        else:
            candidates, scores = np.arange(self.count), self.vectors_NE @ query_E
            scores[dead] = -np.inf
        best = np.sort(np.argpartition(-scores, top_k - 1)[:top_k])
        best = best[np.argsort(-scores[best], kind="stable")]
        return candidates[best], scores[best]

    def _mask(self, condition: Condition) -> Mask:
        key = repr(condition)  # to Python, 0 and False are the same condition
        with self._lock:
            known = self._masks.get(key)
            if known is None:
                known = self._masks[key] = self._rows_that_meet(condition)
                while len(self._masks) > MOST_MASKS:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            return known

    def _rows_that_meet(self, condition: Condition) -> Mask:
        mask_N: Mask = np.ones(self.count, np.bool_)
        if condition.any_of is not None:
            mask_N &= self._rows_with(condition.path, _equal_to(condition.any_of))
        if condition.bounds:
            mask_N &= self._rows_with(condition.path, _within(condition.bounds))
        if condition.none_of:
            mask_N &= ~self._rows_with(condition.path, _equal_to(condition.none_of))
        return mask_N

    def _rows_with(self, path: str, where: tuple[str, list[str | int | float | bytes]]) -> Mask:
        mask_N: Mask = np.zeros(self.count, np.bool_)
        if path in self._paths:
            sql, values = where
            cursor = self._items.execute(f"SELECT row FROM fields WHERE path = ? AND {sql}", (self._paths[path], *values))
            mask_N[np.fromiter((row for (row,) in cursor), np.int64)] = True
        return mask_N


def _opened(path: Path) -> sqlite3.Connection:
    """A database that nobody writes any more. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _equal_to(values: Sequence[Scalar]) -> tuple[str, list[str | int | float | bytes]]:
    return f"value IN ({','.join('?' * len(values))})", [stored(value) for value in values]


def _within(bounds: Sequence[tuple[str, Scalar]]) -> tuple[str, list[str | int | float | bytes]]:
    """SQLite orders numbers before texts before blobs: each kind is kept to itself."""
    kind = "value >= '' AND value < x''" if isinstance(bounds[0][1], str) else "value < ''"
    return " AND ".join([kind, *(f"value {BOUNDS[name]} ?" for name, _ in bounds)]), [stored(value) for _, value in bounds]
