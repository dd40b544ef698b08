"""A synthetic data set of any size: its index and the bytes of its shards are functions of their numbers, and are not stored.

A sample is a JPEG of 500x375 pixels, followed by zeros up to one of `SIZES`, and a caption. Which sample is how long, and which
ones are held out, is drawn for each shard. The contents repeat, the keys do not.
"""

import hashlib
import io
import tarfile
import zlib
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from tinyclip.artifacts.paths import dataset_blocks, dataset_shards, dataset_values
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.data.index.dataset_index import REMOTE_BLOCK_BYTES, DatasetIndex, digest_of, open_index
from tinyclip_workers.data.index.rows import (
    SAMPLES,
    Blocks,
    ShardRow,
    ShardSamples,
    Use,
    blocks_of,
    cut_blocks,
    join_blocks,
    shards_table,
    to_parquet,
)
from tinyclip_workers.data.index.values import ValuesFile

URL = "s3://synthetic/{:06d}.tar"
SIZES = np.arange(16_000, 41_000, 1_660)
"""Of images, in bytes."""
HELD_OUT = 0.02
POPULAR, POPULAR_VALUES = 0.1, 100_000
"""The share of samples whose value of `distinct_key` others have, too, and the number of their values."""
CAPTION = b"a photo of a synthetic scene, repeated"
BLOCK = 512
"""Of a tar."""


@dataclass(frozen=True)
class SyntheticSet:
    """Shards with as many samples each."""

    shards: int = 40_000
    samples: int = 10_000
    distinct: bool = False

    def index(self) -> DatasetIndex:
        """Return its index in memory."""
        rows, blocks = self.rows_and_blocks()
        return DatasetIndex(rows, blocks, self.load_samples, digest_of(rows))

    def write(self, store: ArtifactsStore, folder: str) -> str:
        """Write its index without the samples of the shards into a version's folder; return its digest."""
        rows, blocks = self.rows_and_blocks()
        store.write_bytes(dataset_shards(folder), to_parquet(shards_table(rows)))
        store.write_bytes(dataset_blocks(folder), to_parquet(blocks.table()))
        if self.distinct:
            with ValuesFile(dataset_values(folder)) as values:
                for number in range(self.shards):
                    values.append(self.values(number)[_layout(number, self.samples).use_N == Use.TRAINING])
                values.save(store)
        return digest_of(rows)

    def open(self, store: ArtifactsStore, folder: str, digest: str) -> DatasetIndex:
        """Open the index that was written; the samples of shards are made when they are needed."""
        return replace(open_index(store, folder, digest), load_samples=self.load_samples)

    def rows_and_blocks(self) -> tuple[list[ShardRow], Blocks]:
        rows, blocks = [], []
        for number in range(self.shards):
            table = self.table(number)
            blocks.append(blocks_of(cut_blocks(number, table, REMOTE_BLOCK_BYTES)))
            size = int(table.column("offset")[-1].as_py() + table.column("length")[-1].as_py()) + 2 * BLOCK
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            rows.append(ShardRow(URL.format(number), size, digest, self.samples, int(blocks[-1].pairs.sum())))
        return rows, join_blocks(blocks)

    def load_samples(self, number: int) -> ShardSamples:
        return ShardSamples(self.table(number))

    def table(self, number: int) -> pa.Table:
        """Return the samples of a shard, as an index stores them."""
        layout, count = _layout(number, self.samples), self.samples
        columns: dict[str, Any] = {
            "key": self._keys(number), "offset": layout.start_N, "length": layout.end_N - layout.start_N,
            "captions": np.ones(count, np.int32), "width": np.full(count, 500, np.int32), "height": np.full(count, 375, np.int32),
            "distinct": self.values(number), "crc": crcs()[layout.size_N], "use": layout.use_N,
            "problem": pa.nulls(count, pa.string()), "synthetic": np.zeros(count, np.int32),
            "more_captions": pa.nulls(count, pa.list_(pa.string())), "more_languages": pa.nulls(count, pa.list_(pa.string())),
            "lacking": np.zeros(count, np.uint64), "joined": np.zeros(count, np.uint64),
        }  # fmt: skip
        return pa.table(columns, schema=SAMPLES)

    def values(self, number: int) -> NDArray[np.uint64]:
        """Return the hashed values of `distinct_key`."""
        if not self.distinct:
            return np.zeros(self.samples, np.uint64)
        mixed = _mixed(np.arange(self.samples, dtype=np.uint64) + np.uint64(number * self.samples))
        popular = mixed % np.uint64(1000) < np.uint64(1000 * POPULAR)
        return np.where(popular, _mixed(mixed // np.uint64(1000) % np.uint64(POPULAR_VALUES)), mixed)

    def read(self, number: int, start: int, end: int) -> bytes:
        """Return bytes of a shard, from the beginning of a sample to the end of one."""
        layout = _layout(number, self.samples)
        first, last = np.searchsorted(layout.start_N, [start, end])
        return b"".join(self._sample(number, row, int(layout.size_N[row])) for row in range(first, last))

    def _sample(self, number: int, row: int, size: int) -> bytes:
        key = f"{number:06d}{row:06d}"
        caption = _header(f"{key}.txt", len(CAPTION)), _padded(CAPTION)
        return b"".join([_header(f"{key}.jpg", int(SIZES[size])), images()[size], *caption])

    def _keys(self, number: int) -> pa.Array:
        digits = np.empty((self.samples, 12), np.uint8)
        digits[:, :6], digits[:, 6:] = np.frombuffer(f"{number:06d}".encode(), np.uint8), self._row_digits
        offsets = np.arange(self.samples + 1, dtype=np.int32) * 12
        return pa.Array.from_buffers(pa.binary(), self.samples, [None, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes())])

    @cached_property
    def _row_digits(self) -> NDArray[np.uint8]:
        return np.frombuffer("".join(f"{row:06d}" for row in range(self.samples)).encode(), np.uint8).reshape(-1, 6)


@dataclass(frozen=True)
class _Layout:
    size_N: NDArray[np.int64]
    """The number of each image's size in SIZES."""
    start_N: NDArray[np.int64]
    end_N: NDArray[np.int64]
    use_N: NDArray[np.uint8]


@lru_cache(64)
def _layout(number: int, samples: int) -> _Layout:
    rng = np.random.default_rng(number)
    size_N = rng.integers(len(SIZES), size=samples)
    lengths_N = (3 * BLOCK + -(-SIZES // BLOCK) * BLOCK)[size_N]
    end_N = np.cumsum(lengths_N)
    use_N = np.where(rng.random(samples) < HELD_OUT, Use.HELD_OUT, Use.TRAINING).astype(np.uint8)
    return _Layout(size_N, end_N - lengths_N, end_N, use_N)


@cache
def images() -> list[bytes]:
    """Return the padded contents of an image of each size."""
    noise = np.random.default_rng(0).integers(0, 256, (18, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=40)
    assert file.tell() <= SIZES[0]
    return [_padded(file.getvalue().ljust(int(size), b"\0")) for size in SIZES]


@cache
def crcs() -> NDArray[np.uint32]:
    """Return the CRC-32 of a sample's contents, for each size of its image."""
    whole = [zlib.crc32(CAPTION, zlib.crc32(image[:size])) for image, size in zip(images(), SIZES.tolist(), strict=True)]
    return np.array(whole, dtype=np.uint32)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = int(size)
    return info.tobuf(tarfile.USTAR_FORMAT)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return hashes of numbers (splitmix64)."""
    with np.errstate(over="ignore"):
        z = numbers + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class SyntheticStore:
    """A filesystem that has the shards of a synthetic set."""

    def __init__(self, data: SyntheticSet) -> None:
        self._data = data

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        return self._data.read(int(path.rsplit("/", 1)[-1].split(".")[0]), start, end)
