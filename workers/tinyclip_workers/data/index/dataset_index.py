"""The index of a whole version, as it is stored and as training reads it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tinyclip.artifacts.paths import dataset_blocks, dataset_samples, dataset_shards
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.index.rows import (
    Blocks,
    ShardRow,
    ShardSamples,
    blocks_of,
    cut_blocks,
    from_parquet,
    shard_rows,
    shards_table,
    to_parquet,
)
from tinyclip_workers.data.index.scanning import ScannedShard, scan_or_empty
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.runtime.filesystems import open_own_store

REMOTE_BLOCK_BYTES = 8 << 20
"""The least that is requested of a remote store at once."""
MIN_BLOCK_BYTES, BLOCKS_PER_DATASET = 64 << 10, 4096
"""Blocks of local shards are as small as allows this many: the smaller, the better an epoch is shuffled."""
CACHED_SHARDS = 1024
"""Shards whose samples a process keeps in memory."""


@dataclass(frozen=True)
class DatasetIndex:
    """Where the samples of a version lie."""

    shards: Sequence[ShardRow]
    blocks: Blocks
    load_samples: Callable[[int], ShardSamples]
    """Returns the samples of a shard by its number. Raises OSError."""
    digest: str
    """Identifies the data: the order of an epoch depends on it."""
    skipped: Skipped = field(default_factory=Skipped)
    """Samples that cannot be used, and shards that could not be read to their ends."""

    @property
    def pairs(self) -> int:
        """Samples for training."""
        return int(self.blocks.pairs.sum())

    def first_samples(self) -> NDArray[np.int64]:
        """Return for each shard the number of its first sample among all samples of the version."""
        counts = np.array([shard.samples for shard in self.shards], dtype=np.int64)
        return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


def index_in_memory(scanned: Sequence[ScannedShard]) -> DatasetIndex:
    """Make an index of scanned shards."""
    shards = [each.shard for each in scanned]
    size = block_bytes(shards)
    rows = [block for number, each in enumerate(scanned) for block in cut_blocks(number, each.samples, size)]
    samples = [ShardSamples(each.samples) for each in scanned]
    skipped = Skipped.sum(each.skipped for each in scanned)
    return DatasetIndex(shards, blocks_of(rows), samples.__getitem__, digest_of(shards), skipped)


def index_shards(train: TrainData) -> DatasetIndex:
    """Index the shards of a spec in memory, one after the other. Raises as `expand_shards`."""
    return index_in_memory([scan_or_empty(url, train) for url in expand_shards(train.patterns)])


def block_bytes(shards: Sequence[ShardRow]) -> int:
    """Return the size of blocks."""
    if any("://" in shard.url and not shard.url.startswith("file://") for shard in shards):
        return REMOTE_BLOCK_BYTES
    total = sum(shard.bytes for shard in shards)
    return min(REMOTE_BLOCK_BYTES, max(MIN_BLOCK_BYTES, total // BLOCKS_PER_DATASET))


def digest_of(shards: Sequence[ShardRow], settings: object = None) -> str:
    """Return a digest of the shards' contents, in order, and of settings that decide which samples are used.

    Their addresses are not part of it: a copy of the data set is the same data set.
    """
    content = [[shard.sha256 or shard.url, shard.bytes, shard.samples, shard.pairs] for shard in shards]
    return hashlib.sha256(json.dumps([content, settings], sort_keys=True).encode()).hexdigest()


def write_shard_samples(store: ArtifactsStore, folder: str, number: int, samples: pa.Table) -> None:
    """Write the samples of one shard into a version's folder."""
    store.write_bytes(dataset_samples(folder, number), to_parquet(samples))


def write_index(store: ArtifactsStore, folder: str, shards: Sequence[ShardRow]) -> Blocks:
    """Write shards and blocks of a version whose samples are written. The index counts once the version's document is written."""
    size = block_bytes(shards)
    rows = []
    for number in range(len(shards)):
        samples = from_parquet(store.read_bytes(dataset_samples(folder, number)))
        rows += cut_blocks(number, samples, size)
    blocks = blocks_of(rows)
    store.write_bytes(dataset_shards(folder), to_parquet(shards_table(shards)))
    store.write_bytes(dataset_blocks(folder), to_parquet(blocks.table()))
    return blocks


def open_index(store: ArtifactsStore, folder: str, digest: str, skipped: Skipped | None = None) -> DatasetIndex:
    """Open the index in a version's folder. Raises OSError."""
    shards = shard_rows(from_parquet(store.read_bytes(dataset_shards(folder))))
    blocks = Blocks.of(from_parquet(store.read_bytes(dataset_blocks(folder))))

    return DatasetIndex(shards, blocks, StoredSamples(store.root, folder), digest, skipped or Skipped())


class StoredSamples:
    """Loads the samples of shards from a version's folder, and keeps those of the last ones."""

    def __init__(self, root: str, folder: str) -> None:
        self._root, self._folder = root, folder
        self._process, self._load = 0, lru_cache(CACHED_SHARDS)(self._read)

    def __call__(self, number: int) -> ShardSamples:
        """Return the samples of a shard. Raises OSError."""
        if self._process != os.getpid():  # the clients of stores do not survive a fork
            self._process, self._store = os.getpid(), open_own_store(self._root)
        return self._load(number)

    def _read(self, number: int) -> ShardSamples:
        return ShardSamples(from_parquet(self._store.read_bytes(dataset_samples(self._folder, number))))

    def __reduce__(self) -> tuple[type["StoredSamples"], tuple[str, str]]:
        return StoredSamples, (self._root, self._folder)
