"""Numbers of all pairs that an order looks up by the hundred thousand: values of `distinct_key`, and languages that are lacking.

They are a file of one number for each pair, in the order of the blocks. Of a remote store, a node keeps one copy of it, for all
its processes: every worker compares all pairs of a batch, and those are in as many places as there are readers.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.runtime.filesystems import open_own_store

DATA_CACHE = "TINYCLIP_DATA_CACHE"
MAX_FILES = 4
"""The least recently used copies beyond this number are deleted."""
REQUEST_BYTES, REQUESTS = 16 << 20, 16
"""Size of the requests of a copy, and how many there are at a time."""

GAP = 4096
"""Numbers between two parts that are read separately."""

Numbers = NDArray[np.int64]
Values = NDArray[np.uint64]
DTYPE = np.dtype("<u8")


def values_of(samples: ShardSamples) -> Values:
    """Return the values of a shard's pairs."""
    return samples.distinct_N[samples.training_rows]


def lacking_of(samples: ShardSamples) -> Values:
    """Return the languages that a shard's pairs have no caption in, as bits."""
    return samples.lacking_N[samples.training_rows]


class ValuesFile:
    """A new file. It is not stored if all values are 0."""

    def __init__(self, path: str) -> None:
        """`path`: where it is stored."""
        self._target = path
        self._folder = tempfile.TemporaryDirectory(prefix="tinyclip-values-")
        self._path = Path(self._folder.name) / "values"
        self._file = self._path.open("wb")
        self._count, self._has_values = 0, False

    def append(self, values: Values) -> None:
        if values.any():
            self._file.seek(self._count * DTYPE.itemsize)  # over zeros, which are not written
            self._file.write(values.astype(DTYPE).tobytes())
            self._has_values = True
        self._count += len(values)

    def save(self, store: ArtifactsStore) -> None:
        """Store the file, or remove one of an earlier attempt."""
        self._file.truncate(self._count * DTYPE.itemsize)
        self._file.close()
        if self._has_values:
            store.put_file(self._path, self._target)
        else:
            store.remove(self._target)

    def __enter__(self) -> "ValuesFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self._folder.cleanup()


def count_lacking(store: ArtifactsStore, path: str, pairs: int, languages: int) -> list[int]:
    """Return for each language the number of a version's pairs that have no caption in it; `path`: its file of these."""
    counts = np.zeros(languages, np.int64)
    if store.exists(path):
        size, bits_L = pairs * DTYPE.itemsize, np.arange(languages, dtype=np.uint64)
        for start in range(0, size, REQUEST_BYTES):
            lacking_M = np.frombuffer(store.read_range(path, start, min(size, start + REQUEST_BYTES)), DTYPE)
            counts += ((lacking_M[:, None] >> bits_L) & np.uint64(1)).sum(axis=0).astype(np.int64)
    return [int(count) for count in counts]


class StoredValues:
    """The values in a file of a version. They are read in parts: mapped into memory, they would count as that of the process."""

    def __init__(self, root: str, path: str, digest: str, pairs: int) -> None:
        """`digest`: of the version."""
        self._root, self._path, self._digest, self._pairs = root, path, digest, pairs
        self._file: int | None = None
        """The descriptor of the open file, if there is one: a copy that another process deletes remains readable."""
        self._is_open = False

    def __call__(self, pairs_M: Numbers) -> Values:
        """Return the values of pairs by their numbers. Raises OSError."""
        if not self._is_open:
            self._open()
        values_M = np.zeros(len(pairs_M), np.uint64)
        if self._file is None or not len(pairs_M):
            return values_M
        order_M = np.argsort(pairs_M)
        sorted_M = pairs_M[order_M]
        starts = np.flatnonzero(np.diff(sorted_M, prepend=sorted_M[0] - 2 * GAP) > GAP)
        for start, stop in zip(starts, np.append(starts[1:], len(sorted_M)), strict=True):
            first, last = int(sorted_M[start]), int(sorted_M[stop - 1])
            values_M[order_M[start:stop]] = self._read(first, last + 1)[sorted_M[start:stop] - first]
        return values_M

    def __reduce__(self) -> tuple[type["StoredValues"], tuple[str, str, str, int]]:
        return StoredValues, (self._root, self._path, self._digest, self._pairs)

    def _read(self, first: int, stop: int) -> Values:
        assert self._file is not None
        size = (stop - first) * DTYPE.itemsize
        data = os.pread(self._file, size, first * DTYPE.itemsize)  # any thread, and any process that was forked
        if len(data) != size:
            raise OSError(f"{self._root}/{self._path} is too short; register the data set again")
        return np.frombuffer(data, DTYPE)

    def _open(self) -> None:
        store, path = open_own_store(self._root), self._path
        if store.exists(path):
            local = store.local_path(path) or self._copy(store, path)
            self._file = os.open(local, os.O_RDONLY | os.O_CLOEXEC)
            finalize(self, os.close, self._file)
        self._is_open = True

    def _copy(self, store: ArtifactsStore, path: str) -> Path:
        """Return this node's copy; one process makes it, the others wait."""
        folder = default_folder()
        folder.mkdir(parents=True, exist_ok=True)
        name, size = f"{self._digest[:32]}-{Path(path).stem}", self._pairs * DTYPE.itemsize
        target = folder / f"{name}.values"
        with FileLock(folder / f"{name}.lock"):
            if not target.exists():
                unfinished = folder / f"{name}.tmp"
                with unfinished.open("wb") as file:
                    _read_into(file.fileno(), store, path, size)
                unfinished.rename(target)
            os.utime(target)
            _remove_oldest(folder)
        return target


def default_folder() -> Path:
    """Return `$TINYCLIP_DATA_CACHE`, or a folder of this user."""
    if configured := os.environ.get(DATA_CACHE):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyclip" / "data"


def _read_into(file: int, store: ArtifactsStore, path: str, size: int) -> None:
    """Copy a stored file in several requests at a time. Raises OSError."""

    def read(start: int) -> None:
        end = min(size, start + REQUEST_BYTES)
        data = store.read_range(path, start, end)
        if len(data) != end - start:
            raise OSError(f"{store.uri(path)} has no {end - start:,} bytes from {start:,} on; register the data set again")
        while data:
            written = os.pwrite(file, data, start)
            data, start = data[written:], start + written

    with ThreadPoolExecutor(REQUESTS) as threads:
        for _ in threads.map(read, range(0, size, REQUEST_BYTES)):
            pass


def _remove_oldest(folder: Path) -> None:
    """Delete the least recently used copies. A process that has one open can still read it."""
    copies = sorted(folder.glob("*.values"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in copies[MAX_FILES:]:
        path.unlink(missing_ok=True)
