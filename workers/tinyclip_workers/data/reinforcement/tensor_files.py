"""Safetensors files that are written and read in part, so that neither needs the memory of a whole file.

A file on a disk is memory-mapped. Of a remote one, pages are requested and cached, within a limit for all files together.
Arrays have numpy's types; bf16, which numpy has not, is read and written as uint16.
"""

import io
import json
import math
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.model.files.headers import TensorEntry, WeightsError, read_entries

DTYPES: dict[str, type[np.generic]] = {
    "BF16": np.uint16, "F32": np.float32, "I8": np.int8, "U8": np.uint8, "I32": np.int32, "I64": np.int64, "U64": np.uint64,
}  # fmt: skip
PAGE_BYTES = 256 << 10
"""Of a remote file: the embeddings of the samples of one block of a shard take some hundred kilobytes."""
CACHE_BYTES = 256 << 20
"""Limit of the pages that a process keeps."""
ALIGNMENT = 8

Array = NDArray[Any]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of tensors by name."""


class NewTensorFile:
    """A file of tensors of known shapes, filled in any order: `file[name][...] = values`."""

    def __init__(self, path: Path, shapes: Shapes) -> None:
        """Create the file; its tensors are zero."""
        self.path = path
        header, size = _header(shapes)
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + size)
        self._bytes = np.memmap(path, mode="r+")
        entries, _, start = read_entries(io.BytesIO(header), str(path))
        self._arrays = {name: _view(self._bytes, entry, start) for name, entry in entries.items()}

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def save(self, store: ArtifactsStore, path: str) -> int:
        """Copy the file into a store; returns its size."""
        self._bytes.flush()
        store.put_file(self.path, path)
        return len(self._bytes)


def _header(shapes: Shapes) -> tuple[bytes, int]:
    """Return the header of a file and the size of what follows. The widest types are first, so that all are aligned."""
    entries, end = {}, 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (-np.dtype(DTYPES[item[1][0]]).itemsize, item[0])):
        begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, end


class PageCache:
    """Pages of remote files, the most recently used ones."""

    def __init__(self, store: ArtifactsStore, *, page_bytes: int = PAGE_BYTES, limit: int = CACHE_BYTES) -> None:
        self._store, self._page_bytes, self._most = store, page_bytes, max(1, limit // page_bytes)
        self._pages: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self.requests = 0

    def read(self, path: str, start: int, end: int, size: int) -> bytes:
        """Return bytes of a file of `size` bytes. Raises OSError."""
        each = self._page_bytes
        first, last = start // each, max(start, end - 1) // each
        joined = b"".join(self._page(path, number, size) for number in range(first, last + 1))
        return joined[start - first * each : end - first * each]

    def _page(self, path: str, number: int, size: int) -> bytes:
        key = path, number
        if key not in self._pages:
            start, end = number * self._page_bytes, min(size, (number + 1) * self._page_bytes)
            data = self._store.read_range(path, start, end)
            if len(data) != end - start:
                raise OSError(f"{self._store.uri(path)} has {start + len(data):,} bytes, it should have {size:,}; make it again")
            self._pages[key] = data
            self.requests += 1
            if len(self._pages) > self._most:
                self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        return self._pages[key]


@dataclass(frozen=True)
class TensorFile:
    """An open file. Arrays are read-only: those of a local file are views of it."""

    entries: Mapping[str, TensorEntry]
    _start: int
    _size: int
    _path: str
    _mapped: Array | None
    _pages: PageCache

    @classmethod
    def open(cls, store: ArtifactsStore, path: str, pages: PageCache) -> "TensorFile":
        """Read the header. Raises FileNotFoundError or another OSError, WeightsError if it is damaged."""
        local = store.local_path(path)
        if local is not None:
            mapped = np.memmap(local, mode="r")
            head, size = mapped[:PAGE_BYTES].tobytes(), len(mapped)
        else:
            mapped, head = None, store.read_range(path, 0, PAGE_BYTES)
            size = 0
        entries, _, start = read_entries(io.BytesIO(head), store.uri(path))
        needed = start + max((entry.data_offsets[1] for entry in entries.values()), default=0)
        if local is not None and size != needed:
            raise WeightsError(f"{store.uri(path)} has {size} bytes, it should have {needed}; make the reinforcement again")
        return cls(entries, start, needed, path, mapped, pages)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.entries[name].shape)

    def whole(self, name: str) -> Array:
        """Return a tensor. Raises OSError."""
        return self.part(name)

    def part(self, name: str, index: tuple[int, ...] = (), rows: range | None = None) -> Array:
        """Return `tensor[index]`, or the `rows` of that. Raises OSError, IndexError."""
        entry = self.entries[name]
        kept = entry.shape[len(index) :]
        item = np.dtype(DTYPES[entry.dtype]).itemsize
        if not all(0 <= at < length for at, length in zip(index, entry.shape, strict=False)):
            raise IndexError(f"{name} of {self._path} has shape {entry.shape}, which has no {index}")
        strides = [math.prod(entry.shape[axis + 1 :]) for axis in range(len(index))]
        first = sum(at * stride for at, stride in zip(index, strides, strict=True))
        if rows is not None:
            first, kept = first + rows.start * math.prod(kept[1:]), [len(rows), *kept[1:]]
        begin = self._start + entry.data_offsets[0] + item * first
        end = begin + item * math.prod(kept)
        data: Any = self._mapped[begin:end] if self._mapped is not None else self._pages.read(self._path, begin, end, self._size)
        return np.frombuffer(data, DTYPES[entry.dtype]).reshape(kept)


def _view(mapped: Array, entry: TensorEntry, start: int) -> Array:
    begin, end = (start + offset for offset in entry.data_offsets)
    return mapped[begin:end].view(DTYPES[entry.dtype]).reshape(entry.shape)
