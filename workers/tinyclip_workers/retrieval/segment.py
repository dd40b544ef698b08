"""Search one segment. Its vectors are memory-mapped; its items are looked up by row.

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
from tinyclip_workers.retrieval.codes import open_vectors
from tinyclip_workers.retrieval.generations import GRAPH, ITEMS, Kind, SegmentInfo
from tinyclip_workers.retrieval.graph import Graph, Mask
from tinyclip_workers.retrieval.pictures import Picture, has_pictures, read_pictures
from tinyclip_workers.retrieval.recall import Rows
from tinyclip_workers.retrieval.segment_writer import to_sqlite
from tinyclip_workers.types import Matrix

MAX_CACHED_MASKS = 16
"""Conditions whose rows are cached."""
FILTERED_STEP_COST = 10
"""Cost of one step of a filtered graph search, in exactly compared rows (measured: 5 us against 0.5 us)."""
MMAP_BYTES = 1 << 40
"""Memory-map the whole file of items."""

Tombstones = npt.NDArray[np.int64]
"""Sorted numbers of the rows of a segment that a generation no longer contains."""
NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class NearestRows:
    """The rows of one segment nearest to a query, nearest first, equal ones in order."""

    rows: Rows
    scores: Matrix
    kind: Kind


class Segment:
    """An open segment. Tombstones belong to the generation, so they are an argument of each search."""

    def __init__(self, folder: Path, info: SegmentInfo, size: int) -> None:
        """`size`: numbers of its vectors."""
        self.id, self.count, self.ef = info.id, info.count, info.ef
        self.vectors = open_vectors(folder, info.codes, info.ef)
        self._items = connect_items(folder / ITEMS)
        self._items.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
        self._paths = dict(self._items.execute("SELECT path, id FROM paths").fetchall())
        weakref.finalize(self, self._items.close)
        self._lock = threading.Lock()
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        linked = info.kind == "hnsw" and graphs.available()
        if info.kind == "hnsw" and not linked:
            graphs.log.warning("segment %s is searched exactly, which is slow: %s", self.id, graphs.INSTALL_HINT)
        self.graph = Graph(folder / GRAPH, size, info.ef) if linked else None

    @property
    def memory(self) -> int:
        """Bytes of memory, without the memory-mapped vectors."""
        return 0 if self.graph is None else self.count * (4 * self.vectors.size + graphs.BYTES_PER_ROW)

    def nearest(
        self, query_E: Matrix, top_k: int, tombstones: Tombstones = NO_ROWS, conditions: Sequence[Condition] = ()
    ) -> NearestRows:
        """Return the live rows with the largest cosine that meet all conditions."""
        allowed_N = self.allowed(conditions, tombstones) if conditions else None
        candidates = self.count - len(tombstones) if allowed_N is None else int(allowed_N.sum())
        top_k = min(top_k, candidates)
        if top_k == 0:
            return NearestRows(NO_ROWS, np.empty(0, np.float32), "exact")
        if self.graph is not None and (allowed_N is None or candidates**2 > FILTERED_STEP_COST * self.ef * self.count):
            found = self._search_graph(self.graph, query_E, top_k, tombstones, allowed_N)
            if found is not None:
                return NearestRows(*found, "hnsw")
        if allowed_N is not None:
            return NearestRows(*self.vectors.nearest(query_E, top_k, candidates=np.flatnonzero(allowed_N)), "exact")
        return NearestRows(*self.vectors.nearest(query_E, top_k, removed=tombstones), "exact")

    def allowed(self, conditions: Sequence[Condition], tombstones: Tombstones = NO_ROWS) -> Mask:
        """Return the mask (N,) of the live rows whose metadata meets every condition."""
        allowed_N: Mask = np.ones(self.count, np.bool_)
        for condition in conditions:
            allowed_N &= self._mask(condition)
        allowed_N[tombstones] = False
        return allowed_N

    def items(self, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Return id and metadata (as JSON) of each row."""
        marks = ",".join("?" * len(rows))
        with self._lock:
            found = self._items.execute(f"SELECT row, id, metadata FROM items WHERE row IN ({marks})", rows).fetchall()
        return {row: (id, metadata) for row, id, metadata in found}

    def documents(self, rows: Sequence[int]) -> list[tuple[str, JSON]]:
        """Return id and metadata of the rows in their order; at most as many rows as SQLite accepts parameters."""
        found = self.items(rows)
        return [(found[row][0], json.loads(found[row][1])) for row in rows]

    def pictures(self, rows: Sequence[int]) -> list[Picture | None]:
        """Return the pictures of the rows in their order."""
        with self._lock:
            found = read_pictures(self._items, rows) if has_pictures(self._items) else {}
        return [found.get(row) for row in rows]

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Return the rows of the items with these ids; unknown ids are ignored."""
        with self._lock:
            found = [self._items.execute("SELECT row FROM items WHERE id = ?", (id,)).fetchone() for id in ids]
        return np.array([row[0] for row in found if row is not None], np.int64)

    def _search_graph(
        self, graph: Graph, query_E: Matrix, top_k: int, tombstones: Tombstones, allowed_N: Mask | None
    ) -> tuple[Rows, Matrix] | None:
        """Search the graph. Tombstones are still linked and are dropped afterwards, so more rows are requested."""
        requested = top_k if allowed_N is not None or not len(tombstones) else min(self.count, 2 * top_k)
        while True:
            found = graph.nearest(query_E, requested, allowed_N)
            if found is None or allowed_N is not None or not len(tombstones):
                return found
            rows, scores = found
            live = tombstones[np.minimum(np.searchsorted(tombstones, rows), len(tombstones) - 1)] != rows
            if live.sum() >= top_k:
                return rows[live][:top_k], scores[live][:top_k]
            if requested >= self.count:
                return None
            requested = min(self.count, 4 * requested)

    def _mask(self, condition: Condition) -> Mask:
        key = repr(condition)  # to Python, 0 and False are the same condition
        with self._lock:
            known = self._masks.get(key)
            if known is None:
                known = self._masks[key] = self._compute_mask(condition)
                while len(self._masks) > MAX_CACHED_MASKS:
                    self._masks.popitem(last=False)
            self._masks.move_to_end(key)
            return known

    def _compute_mask(self, condition: Condition) -> Mask:
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


def connect_items(path: Path) -> sqlite3.Connection:
    """Open the items of a segment, which never change. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _equal_to(values: Sequence[Scalar]) -> tuple[str, list[str | int | float | bytes]]:
    return f"value IN ({','.join('?' * len(values))})", [to_sqlite(value) for value in values]


def _within(bounds: Sequence[tuple[str, Scalar]]) -> tuple[str, list[str | int | float | bytes]]:
    """Compare numbers only with numbers and texts only with texts; SQLite orders numbers before texts before blobs."""
    kind = "value >= '' AND value < x''" if isinstance(bounds[0][1], str) else "value < ''"
    return " AND ".join([kind, *(f"value {BOUNDS[name]} ?" for name, _ in bounds)]), [to_sqlite(value) for _, value in bounds]
