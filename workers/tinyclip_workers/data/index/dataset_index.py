"""The index of a whole version, as it is stored and as training reads it."""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
from tinyclip.artifacts.paths import dataset_blocks, dataset_lacking, dataset_samples, dataset_shards, dataset_values
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
    join_blocks,
    shard_rows,
    shards_table,
    to_parquet,
)
from tinyclip_workers.data.index.scanning import ScannedShard, scan_or_empty
from tinyclip_workers.data.index.values import Numbers, StoredValues, Values, ValuesFile, lacking_of, values_of
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.runtime.filesystems import open_own_store

REMOTE_BLOCK_BYTES = 8 << 20
"""The least that is requested of a remote store at once."""
MIN_BLOCK_BYTES, BLOCKS_PER_DATASET = 64 << 10, 4096
"""Blocks of local shards are as small as allows this many: the smaller, the better an epoch is shuffled."""
CACHED_BYTES = 128 << 20
"""Memory of a process for the samples of shards. More do not help where there are many shards: each block is of another one."""
READING_THREADS = 32
"""Of `write_index`: a remote store takes long to answer."""


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
    load_values: Callable[[Numbers], Values] | None = None
    """Returns the values of pairs, if not from the samples. Raises OSError."""
    load_lacking: Callable[[Numbers], Values] | None = None
    """Returns the languages that pairs have no caption in, if not from the samples. Raises OSError."""

    def values(self, pairs_M: Numbers) -> Values:
        """Return the hashed values of `distinct_key` of pairs, by their numbers in the order of the blocks; 0: it has none.

        Raises OSError.
        """
        return self._values_P[pairs_M] if self.load_values is None else self.load_values(pairs_M)

    def lacking(self, pairs_M: Numbers) -> Values:
        """Return the languages that pairs have no caption in, as bits, in the order of the data set's. Raises OSError."""
        return self._lacking_P[pairs_M] if self.load_lacking is None else self.load_lacking(pairs_M)

    @cached_property
    def _values_P(self) -> Values:
        return np.concatenate([values_of(self.load_samples(shard)) for shard in range(len(self.shards))])

    @cached_property
    def _lacking_P(self) -> Values:
        return np.concatenate([lacking_of(self.load_samples(shard)) for shard in range(len(self.shards))])

    @cached_property
    def first_pairs(self) -> Numbers:
        """For each block the number of its first pair among all pairs."""
        return np.cumsum(self.blocks.pairs, dtype=np.int64) - self.blocks.pairs

    @property
    def pairs(self) -> int:
        """Samples for training."""
        return int(self.blocks.pairs.sum())

    def first_samples(self) -> Numbers:
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
    """Write shards, blocks and values of a version whose samples are written. Files of shards without samples are not read.

    The index counts once the version's document is written.
    """
    size, parts = block_bytes(shards), [blocks_of([])]
    with ValuesFile(dataset_values(folder)) as values, ValuesFile(dataset_lacking(folder)) as lacking:
        filled = [number for number, shard in enumerate(shards) if shard.samples]
        for number, samples in zip(filled, _read_samples(store, folder, filled), strict=True):
            parts.append(blocks_of(cut_blocks(number, samples, size)))
            rows = ShardSamples(samples)
            values.append(values_of(rows))
            lacking.append(lacking_of(rows))
        values.save(store)
        lacking.save(store)
    blocks = join_blocks(parts)
    store.write_bytes(dataset_shards(folder), to_parquet(shards_table(shards)))
    store.write_bytes(dataset_blocks(folder), to_parquet(blocks.table()))
    return blocks


def _read_samples(store: ArtifactsStore, folder: str, shards: Sequence[int]) -> Iterator[pa.Table]:
    """Yield the samples of these shards in order, a few of which are read at a time."""
    with ThreadPoolExecutor(READING_THREADS) as threads:
        for first in range(0, len(shards), READING_THREADS):
            paths = [dataset_samples(folder, number) for number in shards[first : first + READING_THREADS]]
            yield from map(from_parquet, threads.map(store.read_bytes, paths))


def open_index(store: ArtifactsStore, folder: str, digest: str, skipped: Skipped | None = None) -> DatasetIndex:
    """Open the index in a version's folder. Raises OSError."""
    shards = shard_rows(from_parquet(store.read_bytes(dataset_shards(folder))))
    blocks = Blocks.of(from_parquet(store.read_bytes(dataset_blocks(folder))))
    pairs = int(blocks.pairs.sum())
    values, lacking = (StoredValues(store.root, path(folder), digest, pairs) for path in (dataset_values, dataset_lacking))
    return DatasetIndex(shards, blocks, StoredSamples(store.root, folder), digest, skipped or Skipped(), values, lacking)


class StoredSamples:
    """Loads the samples of shards from a version's folder, in any number of threads, and keeps those that were used last."""

    def __init__(self, root: str, folder: str) -> None:
        self._root, self._folder = root, folder
        self._cache: _Cache | None = None

    def __call__(self, number: int) -> ShardSamples:
        """Return the samples of a shard. Raises OSError."""
        if self._cache is None or self._cache.process != os.getpid():  # the clients of stores do not survive a fork
            self._cache = _Cache(open_own_store(self._root))
        return self._cache.get(dataset_samples(self._folder, number))

    def __reduce__(self) -> tuple[type["StoredSamples"], tuple[str, str]]:
        return StoredSamples, (self._root, self._folder)


class _Cache:
    """Samples that a process has read."""

    def __init__(self, store: ArtifactsStore) -> None:
        self.process, self._store = os.getpid(), store
        self._kept: OrderedDict[str, ShardSamples] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def get(self, path: str) -> ShardSamples:
        with self._lock:
            if path in self._kept:
                self._kept.move_to_end(path)
                return self._kept[path]
        samples = ShardSamples(from_parquet(self._store.read_bytes(path)))
        with self._lock:
            if path not in self._kept:
                self._kept[path] = samples
                self._bytes += samples.nbytes
            while self._bytes > CACHED_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return samples
