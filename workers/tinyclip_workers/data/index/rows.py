"""The tables of an index: samples, one table for each shard; shards; and blocks, the stretches that training reads at once."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


class Use(IntEnum):
    """The use of a sample."""

    TRAINING = 0
    HELD_OUT = 1
    EXCLUDED = 2
    """It does not meet `where`."""
    UNUSABLE = 3
    """It has no readable image or no caption; `problem` has the reason."""


@dataclass
class SampleRow:
    """One sample of a shard."""

    key: str
    offset: int
    """Of its first header in the decompressed shard, in bytes."""
    length: int
    """From there to the end of its last file, in bytes."""
    captions: int = 0
    """Captions in the shard."""
    width: int = 0
    height: int = 0
    """Pixels, upright; 0: unknown."""
    distinct: int = 0
    """The first 8 bytes of the SHA-256 of its `distinct_key`; 0: it has none."""
    crc: int = 0
    """CRC-32 of the contents of its files in order."""
    use: int = Use.TRAINING
    problem: str | None = None
    synthetic: int = 0
    """Captions at the start of `more_captions` that are in the shard itself (`syn.json`)."""
    more_captions: list[str] | None = None
    """Captions from another file, which are joined to those in the shard."""
    more_languages: list[str | None] | None = None
    """The language of each of `more_captions`, or None; if there are any."""
    lacking: int = 0
    """The languages that the shard has no caption in, as bits, in the order of the data set's languages."""
    joined: int = 0
    """Those of them that `more_captions` have."""


SAMPLES = pa.schema([
    ("key", pa.binary()),  # a name in a tar need not be UTF-8
    ("offset", pa.int64()), ("length", pa.int64()), ("captions", pa.int32()), ("width", pa.int32()), ("height", pa.int32()),
    ("distinct", pa.uint64()), ("crc", pa.uint32()), ("use", pa.uint8()), ("problem", pa.string()),
    ("synthetic", pa.int32()), ("more_captions", pa.list_(pa.string())), ("more_languages", pa.list_(pa.string())),
    ("lacking", pa.uint64()), ("joined", pa.uint64()),
])  # fmt: skip


@dataclass(slots=True)
class ShardRow:
    """One shard."""

    url: str
    bytes: int
    """Of the file, as it is stored."""
    sha256: str | None
    """None: its content was not read."""
    samples: int
    pairs: int
    """Samples for training."""
    sequential: bool = False
    """True if it cannot be read from an offset: it is compressed, or its server has no range requests."""


SHARDS = pa.schema([
    ("url", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()), ("samples", pa.int64()), ("pairs", pa.int64()),
    ("sequential", pa.bool_()),
])  # fmt: skip


BLOCKS = pa.schema([
    ("shard", pa.int32()), ("first", pa.int32()), ("rows", pa.int32()), ("pairs", pa.int32()), ("offset", pa.int64()),
    ("length", pa.int64()),
])  # fmt: skip


@dataclass
class Blocks:
    """All blocks of an index in the order of the shards, as columns of equal length."""

    shard: NDArray[np.int32]
    first: NDArray[np.int32]
    """Row of its first sample in the shard."""
    rows: NDArray[np.int32]
    pairs: NDArray[np.int32]
    """Samples for training."""
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard)

    def table(self) -> pa.Table:
        return pa.table({name: getattr(self, name) for name in BLOCKS.names}, schema=BLOCKS)

    @classmethod
    def of(cls, table: pa.Table) -> "Blocks":
        return cls(**{name: table.column(name).to_numpy() for name in BLOCKS.names})


class ShardSamples:
    """The samples of one shard as columns (N samples)."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.offset_N: NDArray[np.int64] = table.column("offset").to_numpy()
        self.length_N: NDArray[np.int64] = table.column("length").to_numpy()
        self.distinct_N: NDArray[np.uint64] = table.column("distinct").to_numpy()
        self.crc_N: NDArray[np.uint32] = table.column("crc").to_numpy()
        self.training_rows: NDArray[np.int64] = np.flatnonzero(table.column("use").to_numpy() == Use.TRAINING)
        self._has_more = table.column("more_captions").null_count < len(table)
        self._has_languages = "more_languages" in table.column_names and table.column("more_languages").null_count < len(table)
        self.lacking_N: NDArray[np.uint64] = _lacking(table)
        """The languages that a sample has no caption in, as bits."""

    def __len__(self) -> int:
        return len(self.offset_N)

    def key(self, row: int) -> str:
        data: bytes = self.table.column("key")[row].as_py()
        return data.decode("utf-8", "surrogateescape")

    def more_captions(self, row: int) -> list[str]:
        """Return the captions of a sample that are not in the shard."""
        if not self._has_more:
            return []
        captions: list[str] | None = self.table.column("more_captions")[row].as_py()  # texts of a whole shard take megabytes
        return captions or []

    def more_languages(self, row: int) -> list[str | None]:
        """Return the language of each of these captions; None where it has none."""
        languages: list[str | None] | None = self.table.column("more_languages")[row].as_py() if self._has_languages else None
        return languages or [None] * len(self.more_captions(row))

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return int(self.table.nbytes) + self.training_rows.nbytes


def _lacking(table: pa.Table) -> NDArray[np.uint64]:
    if "lacking" not in table.column_names:  # a version of before there were languages
        return np.zeros(len(table), np.uint64)
    lacking_N: NDArray[np.uint64] = table.column("lacking").to_numpy() & ~table.column("joined").to_numpy()
    return lacking_N


def samples_table(rows: Sequence[SampleRow]) -> pa.Table:
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in SAMPLES.names if name != "key"}
    return pa.table({"key": [row.key.encode("utf-8", "surrogateescape") for row in rows], **columns}, schema=SAMPLES)


def shards_table(rows: Sequence[ShardRow]) -> pa.Table:
    return pa.table({name: [getattr(row, name) for row in rows] for name in SHARDS.names}, schema=SHARDS)


def shard_rows(table: pa.Table) -> list[ShardRow]:
    columns = [table.column(name).to_pylist() for name in SHARDS.names]
    return [ShardRow(*values) for values in zip(*columns, strict=True)]


def cut_blocks(shard: int, samples: pa.Table, block_bytes: int) -> list[tuple[int, int, int, int, int, int]]:
    """Cut a shard into blocks of successive whole samples, each the shortest of at least `block_bytes`, as rows of `BLOCKS`."""
    offset_N = samples.column("offset").to_numpy()
    end_N = offset_N + samples.column("length").to_numpy()
    pairs = np.append(0, np.cumsum(samples.column("use").to_numpy() == Use.TRAINING))
    blocks, first = [], 0
    while first < len(offset_N):
        start = int(offset_N[first])
        stop = min(int(np.searchsorted(end_N, start + block_bytes)) + 1, len(offset_N))
        blocks.append((shard, first, stop - first, int(pairs[stop] - pairs[first]), start, int(end_N[stop - 1]) - start))
        first = stop
    return blocks


def blocks_of(rows: Sequence[tuple[int, int, int, int, int, int]]) -> Blocks:
    columns = np.array(rows, dtype=np.int64).reshape(-1, len(BLOCKS)).T
    narrow = [column.astype(kind.type.to_pandas_dtype()) for column, kind in zip(columns, BLOCKS, strict=True)]
    return Blocks(*narrow)


def join_blocks(parts: Sequence[Blocks]) -> Blocks:
    """Return the blocks of all parts of an index, at least one."""
    return Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in BLOCKS.names))


def to_parquet(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file, the same for the same table."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data)).read()  # `read_table` imports data sets, 70 MB
