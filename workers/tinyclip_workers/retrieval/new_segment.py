"""Makes a segment of an index: written aside or in place, linked where it is large, then in the store for good.

Shapes: N rows, E embedding size.
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tinyclip.artifacts.paths import index_segment
from tinyclip.schemas import IndexKind

from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval.files import GRAPH, VECTORS, SegmentInfo
from tinyclip_workers.retrieval.graph import write_graph
from tinyclip_workers.retrieval.segment_writer import SegmentWriter
from tinyclip_workers.runtime.store import Store
from tinyclip_workers.types import Matrix

GRAPH_FROM = 100_000
"""Items from which `auto` means a graph: comparing all takes 15 ms a query there, at 512 dimensions."""
SEGMENT_GRAPH_FROM = 10_000
"""Rows below which a segment of an index with graphs goes without one."""


def needs_graph(asked: IndexKind, index_count: int, rows: int) -> bool:
    """Whether a segment of so many rows gets a graph, in an index of so many items."""
    if asked == "auto":
        return graphs.available() and index_count >= GRAPH_FROM and rows >= SEGMENT_GRAPH_FROM
    return asked == "hnsw"


class NewSegment:
    """A segment that is being written; rows go to `writer`."""

    def __init__(self, store: Store, name: str, folder: Path, id: str, embed_dim: int) -> None:
        self._store, self._name, self._folder, self._id = store, name, folder, id
        self.writer = SegmentWriter(folder, embed_dim)

    def finish(
        self, *, graph: bool, queries_QE: Matrix | None = None, on_progress: Callable[[int], None] = lambda done: None
    ) -> SegmentInfo:
        """All is in the store when this returns. `queries_QE`: more queries like those to come, to find the search width by."""
        self.writer.finish()
        info = SegmentInfo(id=self._id, count=self.writer.count, kind="exact")
        if graph:
            vectors_NE: Matrix = np.load(self._folder / VECTORS, mmap_mode="r")
            ef, recall = write_graph(vectors_NE, self._folder / GRAPH, queries_QE, on_progress)
            info = info.model_copy(update={"kind": "hnsw", "ef": ef, "recall": recall})
        folder = index_segment(self._name, self._id)
        if self._store.local_path(folder) != self._folder:
            for file in info.files:
                self._store.put_file(self._folder / file, f"{folder}/{file}")
        return info


@contextmanager
def new_segment(store: Store, name: str, embed_dim: int) -> Iterator[NewSegment]:
    """In place on a disk, where nothing counts before a generation names it; aside for a store elsewhere."""
    id = uuid.uuid4().hex
    local = store.local_path(index_segment(name, id))
    aside = None if local is not None else Path(tempfile.mkdtemp(prefix="tinyclip-index-"))
    segment = NewSegment(store, name, local or Path(f"{aside}/{id}"), id, embed_dim)
    try:
        with segment.writer:
            yield segment
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
