"""Write one segment: rows of vectors, their items, the metadata values that filters compare, and the graph of a large segment.

Shapes: N rows, Q queries, E embedding size.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tinyclip.artifacts.paths import index_segment
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import Scalar, comparable_values
from tinyclip.schemas import JSON
from tinyclip.schemas.indexes import IndexCodes

from tinyclip_workers.retrieval.codes import FLOATS, FloatVectors, leading, open_vectors, write_codes
from tinyclip_workers.retrieval.generations import GRAPH, ITEMS, VECTORS, SegmentInfo
from tinyclip_workers.retrieval.graph import write_graph
from tinyclip_workers.retrieval.measuring import Measured, measure_codes, median_search_ms, sample_of
from tinyclip_workers.retrieval.pictures import Picture, PictureWriter
from tinyclip_workers.types import Matrix

MAX_FILTER_VALUES = 256
"""Metadata values of one item that filters see."""

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL);
CREATE TABLE paths (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE fields (path INTEGER NOT NULL, value BLOB NOT NULL, row INTEGER NOT NULL,
                     PRIMARY KEY (path, value, row)) WITHOUT ROWID;
CREATE TEMP TABLE unsorted (path INTEGER, value BLOB, row INTEGER);
"""

BOOLEANS = {True: b"\x01", False: b"\x00"}
"""Booleans as SQLite stores them: neither a number nor a text, so that 1 is not equal to true."""


@contextmanager
def new_segment(
    store: ArtifactsStore, index: str, size: int, codes: IndexCodes = "float"
) -> Iterator["SegmentWriter"]:
    """Write a segment directly into a local store, where no generation names it yet; for a remote store, write a local copy.

    `size`: numbers of each vector that it keeps.
    """
    id = uuid.uuid4().hex
    local = store.local_path(index_segment(index, id))
    temporary = None if local is not None else Path(tempfile.mkdtemp(prefix="tinyclip-index-"))
    writer = SegmentWriter(store, index, id, local or Path(f"{temporary}/{id}"), size, codes)
    try:
        yield writer
    finally:
        writer.close()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


class SegmentWriter:
    """The files of one segment in a local folder. They are complete only after `finish`."""

    def __init__(self, store: ArtifactsStore, index: str, id: str, folder: Path, size: int, codes: IndexCodes) -> None:
        folder.mkdir(parents=True, exist_ok=False)
        self._store, self._index, self._id, self._folder = store, index, id, folder
        self._size, self._codes, self.count = size, codes, 0
        self._paths: dict[str, int] = {}
        self._vectors: BinaryIO = open(folder / VECTORS, "wb")  # noqa: SIM115 -- closed by `close`
        self._header_end = self._write_header()
        self._items = sqlite3.connect(folder / ITEMS)
        self._items.executescript(_TABLES)
        self._pictures = PictureWriter(self._items)

    def close(self) -> None:
        self._vectors.close()
        self._items.close()

    def has(self, id: str) -> bool:
        """Return whether an item with this id has been added."""
        return self._items.execute("SELECT 1 FROM items WHERE id = ?", (id,)).fetchone() is not None

    def add(
        self, vectors_NE: Matrix, items: Sequence[tuple[str, JSON]], pictures: Sequence[Picture | None] = ()
    ) -> None:
        """Append rows, cut to the segment's size, their (id, metadata), and their pictures, if there are any.

        Raises sqlite3.IntegrityError for an id that has been added.
        """
        vectors_NE = leading(vectors_NE, self._size)
        assert vectors_NE.shape == (len(items), self._size), (vectors_NE.shape, len(items), self._size)
        documents = [encodable(json.dumps(metadata, ensure_ascii=False)) for _, metadata in items]
        rows = [(self.count + i, id, document) for i, ((id, _), document) in enumerate(zip(items, documents, strict=True))]
        self._items.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        for i, (_, metadata) in enumerate(items):
            self._add_filter_values(self.count + i, metadata)
        self._pictures.add(self.count, pictures)
        self._vectors.write(np.ascontiguousarray(vectors_NE, "<f4").tobytes())
        self.count += len(items)

    def finish(
        self, *, graph: bool, queries_QE: Matrix | None = None, on_progress: Callable[[int], None] = lambda done: None
    ) -> SegmentInfo:
        """Complete all files, durably in the store. `queries_QE`: expected queries, to choose the search width with."""
        self._finish_rows()
        queries_QE = None if queries_QE is None else leading(queries_QE, self._size)
        vectors_NE: Matrix = np.load(self._folder / VECTORS, mmap_mode="r")
        if graph:
            found = write_graph(vectors_NE, self._folder / GRAPH, queries_QE, on_progress)
        elif self._codes == "float":
            found = Measured(0, None, median_search_ms(FloatVectors(self._folder), [vectors_NE[sample_of(self.count)]]))
        else:
            write_codes(self._folder, self._codes)
            found = measure_codes(open_vectors(self._folder, self._codes, 0), vectors_NE, queries_QE)
            (self._folder / FLOATS).unlink()
        info = SegmentInfo(
            id=self._id, count=self.count, kind="hnsw" if graph else "exact", ef=found.width, recall=found.recall,
            codes=self._codes, search_ms=found.search_ms,
        )  # fmt: skip
        info.bytes = sum(self._synced_size(file) for file in info.files)
        folder = index_segment(self._index, self._id)
        if self._store.local_path(folder) != self._folder:
            for file in info.files:
                self._store.put_file(self._folder / file, f"{folder}/{file}")
        return info

    def _finish_rows(self) -> None:
        # Sorted once at the end: inserting at random places would write the tree's pages many times.
        self._items.execute("INSERT OR IGNORE INTO fields SELECT path, value, row FROM unsorted ORDER BY 1, 2, 3")
        self._items.executemany("INSERT INTO paths VALUES (?, ?)", [(id, path) for path, id in self._paths.items()])
        self._items.commit()
        self._items.close()
        self._vectors.seek(0)
        end = self._write_header()
        assert end == self._header_end, "the header outgrew the space that numpy reserves for a growing first axis"
        self._vectors.flush()

    def _synced_size(self, file: str) -> int:
        """Make a file durable; returns its size."""
        with open(self._folder / file, "rb") as written:
            os.fsync(written.fileno())
            return os.fstat(written.fileno()).st_size

    def _add_filter_values(self, row: int, metadata: JSON) -> None:
        values = [
            (self._paths.setdefault(path, len(self._paths)), to_sqlite(value), row)
            for path, value in list(comparable_values(metadata))[:MAX_FILTER_VALUES]
        ]
        self._items.executemany("INSERT INTO unsorted VALUES (?, ?, ?)", values)

    def _write_header(self) -> int:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._size)}
        np.lib.format.write_array_header_1_0(self._vectors, header)
        return self._vectors.tell()


def encodable(text: str) -> str:
    """Replace the surrogates that JSON and tar files can contain and that UTF-8, and so SQLite, cannot encode."""
    return text.encode("utf-8", "replace").decode()


def to_sqlite(value: Scalar) -> str | int | float | bytes:
    """Return a value as SQLite compares it: integers beyond its range as floats, booleans as neither numbers nor texts."""
    if isinstance(value, bool):
        return BOOLEANS[value]
    return float(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value
