"""Writes one segment: rows of vectors, the items that they belong to, and what filters compare.

Shapes: N rows, E embedding size.
"""

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from tinyclip.filters import Scalar, comparable_values
from tinyclip.schemas import JSON

from tinyclip_workers.retrieval.files import ITEMS, VECTORS
from tinyclip_workers.types import Matrix

MOST_VALUES = 256
"""Of one item that filters see."""

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL);
CREATE TABLE paths (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE fields (path INTEGER NOT NULL, value BLOB NOT NULL, row INTEGER NOT NULL,
                     PRIMARY KEY (path, value, row)) WITHOUT ROWID;
CREATE TEMP TABLE unsorted (path INTEGER, value BLOB, row INTEGER);
"""

TRUTH = {True: b"\x01", False: b"\x00"}
"""How truth values are kept: no number and no text, so that 1 is not equal to true."""


class SegmentWriter:
    """Vectors and items of one segment in a local folder, in order. What it leaves counts for nothing before `finish`."""

    def __init__(self, folder: Path, embed_dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=False)
        self._embed_dim, self.count = embed_dim, 0
        self._paths: dict[str, int] = {}
        self._vectors: BinaryIO = open(folder / VECTORS, "wb")  # noqa: SIM115 -- closed by __exit__
        self._header_end = self._write_header()
        self._items_path = folder / ITEMS
        self._items = sqlite3.connect(self._items_path)
        self._items.executescript(_TABLES)

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._vectors.close()
        self._items.close()

    def has(self, id: str) -> bool:
        return self._items.execute("SELECT 1 FROM items WHERE id = ?", (id,)).fetchone() is not None

    def add(self, vectors_NE: Matrix, items: Sequence[tuple[str, JSON]]) -> None:
        """Rows and their (id, metadata). Raises sqlite3.IntegrityError for an id that is there already."""
        assert vectors_NE.shape == (len(items), self._embed_dim), (vectors_NE.shape, len(items), self._embed_dim)
        documents = [storable(json.dumps(metadata, ensure_ascii=False)) for _, metadata in items]
        rows = [(self.count + i, id, document) for i, ((id, _), document) in enumerate(zip(items, documents, strict=True))]
        self._items.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        for i, (_, metadata) in enumerate(items):
            self._note_values(self.count + i, metadata)
        self._vectors.write(np.ascontiguousarray(vectors_NE, "<f4").tobytes())
        self.count += len(items)

    def finish(self) -> None:
        """All is on disk when this returns."""
        # Sorted once at the end: a tree that grows at random places is written many times over.
        self._items.execute("INSERT OR IGNORE INTO fields SELECT path, value, row FROM unsorted ORDER BY 1, 2, 3")
        self._items.executemany("INSERT INTO paths VALUES (?, ?)", [(id, path) for path, id in self._paths.items()])
        self._items.commit()
        self._items.close()
        self._vectors.seek(0)
        end = self._write_header()
        assert end == self._header_end, "the header outgrew the room that numpy leaves for a growing first axis"
        self._vectors.flush()
        os.fsync(self._vectors.fileno())
        with open(self._items_path, "rb") as items:
            os.fsync(items.fileno())

    def _note_values(self, row: int, metadata: JSON) -> None:
        values = [
            (self._paths.setdefault(path, len(self._paths)), stored(value), row)
            for path, value in list(comparable_values(metadata))[:MOST_VALUES]
        ]
        self._items.executemany("INSERT INTO unsorted VALUES (?, ?, ?)", values)

    def _write_header(self) -> int:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._embed_dim)}
        np.lib.format.write_array_header_1_0(self._vectors, header)
        return self._vectors.tell()


def storable(text: str) -> str:
    """Text that UTF-8 and SQLite can hold: halves of surrogate pairs, which JSON and tar files can spell, are replaced."""
    return text.encode("utf-8", "replace").decode()


def stored(value: Scalar) -> str | int | float | bytes:
    """A value as SQLite compares it: integers too large for it as floats, truth values apart from numbers."""
    if isinstance(value, bool):
        return TRUTH[value]
    return float(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value
