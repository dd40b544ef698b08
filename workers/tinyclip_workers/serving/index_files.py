"""A retrieval index as files: rows of vectors beside the items that they belong to.

indexes/<name>/request.json                 what to build, written by the control plane
indexes/<name>/current.json                 which build answers; replaced in one step
indexes/<name>/builds/<n>/vectors.npy       (items, E) float32, L2-normalised
indexes/<name>/builds/<n>/items.sqlite      row number -> id, metadata
indexes/<name>/builds/<n>/index.json        written last: a build without it does not exist
"""

import json
import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from tinyclip.schemas import JSON, Hit, Response
from tinyclip.schemas.artifacts import index_folder

Matrix = npt.NDArray[np.float32]

VECTORS, ITEMS, MANIFEST = "vectors.npy", "items.sqlite", "index.json"


class BuiltIndex(Response):
    """`index.json` of a build, and `current.json` that points at it."""

    name: str
    build: int
    nonce: str
    """Tells two builds of one number apart: an index may be deleted and made again."""
    model: str
    """`name@version` whose embeddings these are; only its queries can be compared with them."""
    embed_dim: int
    count: int
    skipped: int = 0


def request_path(name: str) -> str:
    return f"{index_folder(name)}/request.json"


def current_path(name: str) -> str:
    return f"{index_folder(name)}/current.json"


def builds_folder(name: str) -> str:
    return f"{index_folder(name)}/builds"


def build_folder(name: str, build: int) -> str:
    return f"{builds_folder(name)}/{build}"


class IndexWriter:
    """Writes the vectors and items of one build to a local folder, in order."""

    def __init__(self, folder: Path, embed_dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._embed_dim, self.count = embed_dim, 0
        self._vectors: BinaryIO = open(folder / VECTORS, "wb")  # noqa: SIM115 -- closed by finish
        self._header_end = self._write_header()
        for leftover in folder.glob(f"{ITEMS}*"):
            leftover.unlink()
        self._items = sqlite3.connect(folder / ITEMS)
        self._items.execute("CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL)")

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._vectors.close()
        self._items.close()

    def has(self, id: str) -> bool:
        return self._items.execute("SELECT 1 FROM items WHERE id = ?", (id,)).fetchone() is not None

    def add(self, vectors_NE: Matrix, items: list[tuple[str, JSON]]) -> None:
        """Rows and their (id, metadata). Raises sqlite3.IntegrityError for an id that is there already."""
        assert vectors_NE.shape == (len(items), self._embed_dim), (vectors_NE.shape, len(items), self._embed_dim)
        rows = [(self.count + i, id, json.dumps(metadata, ensure_ascii=False)) for i, (id, metadata) in enumerate(items)]
        self._items.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        self._vectors.write(np.ascontiguousarray(vectors_NE, "<f4").tobytes())
        self.count += len(items)

    def finish(self) -> None:
        """All is on disk when this returns."""
        self._items.commit()
        self._vectors.seek(0)
        end = self._write_header()
        assert end == self._header_end, "the header outgrew the room that numpy leaves for a growing first axis"
        self._vectors.flush()
        os.fsync(self._vectors.fileno())

    def _write_header(self) -> int:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._embed_dim)}
        np.lib.format.write_array_header_1_0(self._vectors, header)
        return self._vectors.tell()


class IndexReader:
    """One build, opened for searching: vectors stay on disk and are mapped, items are looked up by row."""

    def __init__(self, folder: Path, built: BuiltIndex) -> None:
        self.built = built
        # numpy cannot map a file without rows
        self._vectors_NE: Matrix = np.load(folder / VECTORS, mmap_mode="r" if built.count else None)
        items = f"{(folder / ITEMS).absolute().as_uri()}?mode=ro&immutable=1"
        self._items = sqlite3.connect(items, uri=True, check_same_thread=False)
        self._lock = threading.Lock()

    def nearest(self, query_E: Matrix, top_k: int) -> list[Hit]:
        """The items with the largest cosine, best first; equal ones in the order of the index."""
        scores_N = self._vectors_NE @ query_E
        top_k = min(top_k, len(scores_N))
        if top_k == 0:
            return []
        best = np.sort(np.argpartition(-scores_N, top_k - 1)[:top_k])
        best = best[np.argsort(-scores_N[best], kind="stable")]
        return [self._hit(int(row), float(scores_N[row])) for row in best]

    def _hit(self, row: int, score: float) -> Hit:
        with self._lock:
            id, metadata = self._items.execute("SELECT id, metadata FROM items WHERE row = ?", (row,)).fetchone()
        return Hit(id=id, score=score, metadata=json.loads(metadata))
