"""Reading the blocks of an epoch's order: each byte once, ahead of its use, within a limit of memory."""

import io
import logging
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.reading import check_rows
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.order import EpochOrder, Place
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import BROKEN_SHARD, read_placed
from tinyclip_workers.runtime.user_files import RangeReader, open_file

log = logging.getLogger(__name__)

READING_THREADS = 4
MAX_OPEN_SHARDS = 16
"""Shards that are kept open; sequential ones, to continue where the last block ended."""
SEQUENTIAL_REQUEST_BYTES = 8 << 20


@dataclass(frozen=True)
class Found:
    """A pair as it was read. `sample` is None if its block could not be read, for `reason`."""

    shard: int
    row: int
    samples: ShardSamples
    """The index of its shard."""
    sample: Sample | None
    reason: str = ""


@dataclass
class ReadStatistics:
    """What was requested of the store."""

    bytes: int = 0
    requests: int = 0
    sizes: list[int] = field(default_factory=list)
    """Of the first thousand requests."""

    def add(self, size: int) -> None:
        self.bytes += size
        self.requests += 1
        if len(self.sizes) < 1000:
            self.sizes.append(size)


@dataclass
class _Piece:
    """The part of a block that this process uses: its pairs from `first` on, by row of the shard."""

    first: int
    rows: list[int]
    samples: dict[int, Sample]
    left: int
    """Pairs that were not used yet."""
    reason: str = ""
    """Why it could not be read."""


class BlockReader:
    """Reads the pairs of one epoch for some slots of its batches, at most `max_bytes` of them held at a time."""

    def __init__(self, order: EpochOrder, slots: range, max_bytes: int, statistics: ReadStatistics | None = None) -> None:
        self._order, self._index = order, order.order.index
        self._stretch, self._max_bytes = order.stretch(slots), max_bytes
        self.statistics = statistics or ReadStatistics()
        self._pieces: OrderedDict[int, Future[_Piece]] = OrderedDict()
        self._held = 0
        """Bytes of the blocks that are held or being read."""
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="blocks")
        self._sequential = _SequentialShards(self._index, self.statistics)
        self._ranges = RangeReader(MAX_OPEN_SHARDS)
        self._following: dict[int, int] = {}
        """For each sequential shard the block behind the last one that was read."""

    def prefetch(self, place: Place) -> None:
        """Begin to read the blocks of pairs that are wanted soon, as far as there is memory."""
        for block in dict.fromkeys(place.block_M.tolist()):
            if block not in self._pieces and self._held < self._max_bytes:
                self._request(block)

    def read(self, place: Place) -> list[Found]:
        """Return pairs in this order. Raises DataError if a shard has changed."""
        found = []
        for block, pair in zip(place.block_M.tolist(), place.pair_M.tolist(), strict=True):
            found.append(self._take(block, pair))
        return found

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._sequential.close()
        self._ranges.close()

    def _take(self, block: int, pair: int) -> Found:
        if block not in self._pieces:
            self._request(block)
        self._pieces.move_to_end(block)
        piece = self._pieces[block].result()
        shard = self._shard(block)
        row = piece.rows[pair - piece.first]
        piece.left -= 1
        if piece.left == 0:
            del self._pieces[block]
            self._held -= self._bytes_of(block)
        return Found(shard, row, self._index.load_samples(shard), piece.samples.get(row), piece.reason)

    def _request(self, block: int) -> None:
        """Read a block; those that were used least recently make room for it, and are read again if they are needed."""
        while self._pieces and self._held > self._max_bytes:
            removed, _ = self._pieces.popitem(last=False)
            self._held -= self._bytes_of(removed)
        shard = self._shard(block)
        if not self._index.shards[shard].sequential:
            self._pieces[block] = self._threads.submit(self._read, block)
            self._held += self._bytes_of(block)
            return
        for earlier in range(self._first_sequential(block, shard), block + 1):  # in the order in which they can be read
            if earlier not in self._pieces:
                self._pieces[earlier] = Future()
                self._pieces[earlier].set_result(self._read(earlier))
                self._held += self._bytes_of(earlier)
        self._following[shard] = block + 1

    def _first_sequential(self, block: int, shard: int) -> int:
        """Return the first block to read of a sequential shard, so that it is not read from its beginning again for each block.

        That is the block behind the last one that was read, else the first one of the window that `block` is in.
        """
        following = self._following.get(shard, block + 1)
        if following <= block:
            return following
        starts = self._order.ends - self._index.blocks.pairs[self._order.block_order]
        first = block
        while first > 0 and self._shard(first - 1) == shard and self._order.ends[first - 1] > self._stretch.start:
            if starts[block] - self._order.ends[first - 1] > self._order.order.window:
                break
            first -= 1
        return first

    def _shard(self, block: int) -> int:
        return int(self._index.blocks.shard[self._order.block_order[block]])

    def _bytes_of(self, block: int) -> int:
        return int(self._index.blocks.length[self._order.block_order[block]])

    def _read(self, block: int) -> _Piece:
        number = int(self._order.block_order[block])
        shard = int(self._index.blocks.shard[number])
        samples = self._index.load_samples(shard)
        first, rows = self._wanted(block, number, samples)
        length = int(samples.offset_N[rows[-1]] + samples.length_N[rows[-1]] - samples.offset_N[rows[0]])
        reason = ""
        for _ in range(2):
            try:
                read = self._read_rows(shard, samples, rows[0], rows[-1] + 1, length)
                return _Piece(first, rows, {row: read[row] for row in rows}, len(rows))
            except BROKEN_SHARD as error:
                reason = str(error)
                log.warning("block %d of %s cannot be read: %s", number, self._index.shards[shard].url, reason)
        return _Piece(first, rows, {}, len(rows), f"shard {self._index.shards[shard].url}: {reason}")

    def _wanted(self, block: int, number: int, samples: ShardSamples) -> tuple[int, list[int]]:
        """Return the number of the first pair of a block that lies in this process's stretch, and the rows of all that do."""
        blocks = self._index.blocks
        start = int(self._order.ends[block]) - int(blocks.pairs[number])
        low = max(0, self._stretch.start - start)
        high = min(int(blocks.pairs[number]), self._stretch.stop - start)
        before = int(np.searchsorted(samples.training_rows, blocks.first[number]))
        return low, samples.training_rows[before + low : before + high].tolist()

    def _read_rows(self, shard: int, samples: ShardSamples, first: int, last: int, length: int) -> dict[int, Sample]:
        """Return the samples of rows `first` to `last` of a shard. Raises one of BROKEN_SHARD, or DataError if it has changed."""
        row = self._index.shards[shard]
        if row.sequential:
            return self._sequential.read(shard, samples, first, last)
        data = self._ranges.read(row.url, int(samples.offset_N[first]), length)
        self.statistics.add(length)
        placed = read_placed(row.url, io.BytesIO(data))
        return check_rows(row.url, samples, first, [each.sample for each in placed], last - first)


class _SequentialShards:
    """Shards that can be read from their beginning only: each is kept open behind the last row that was read."""

    def __init__(self, index: DatasetIndex, statistics: ReadStatistics) -> None:
        self._index, self._statistics = index, statistics
        self._open: OrderedDict[int, tuple[int, Iterator[Sample]]] = OrderedDict()

    def read(self, shard: int, samples: ShardSamples, first: int, last: int) -> dict[int, Sample]:
        """Return rows `first` to `last`. Raises one of BROKEN_SHARD, or DataError if it has changed."""
        url = self._index.shards[shard].url
        at, stream = self._open.pop(shard, (0, None))
        if stream is None or at > first:
            at, stream = 0, self._stream(url)
        found: list[Sample] = []
        for row, sample in enumerate(stream, start=at):
            if row >= first:
                found.append(sample)
            if row == last - 1:
                break
        self._open[shard] = last, stream
        if len(self._open) > MAX_OPEN_SHARDS:
            self._open.popitem(last=False)
        return check_rows(url, samples, first, found, last - first)

    def close(self) -> None:
        self._open.clear()

    def _stream(self, url: str) -> Iterator[Sample]:
        with closing(open_file(url, block_bytes=SEQUENTIAL_REQUEST_BYTES)) as file:
            self._statistics.requests += 1
            yield from (placed.sample for placed in read_placed(url, file))

