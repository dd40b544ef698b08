"""Reading the blocks of an epoch's order: each byte once, ahead of its use, within a limit of memory."""

import io
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.index.reading import check_rows
from tinyclip_workers.data.index.rows import ShardSamples
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import BROKEN_SHARD, read_placed
from tinyclip_workers.data.stream.order import EpochOrder, Place
from tinyclip_workers.runtime.user_files import RangeReader, open_file

log = logging.getLogger(__name__)

READING_THREADS = 4
MAX_OPEN_SHARDS = 16
"""Shards that are kept open; sequential ones, to continue where the last block ended."""
SEQUENTIAL_REQUEST_BYTES = 8 << 20
AHEAD = 4
"""Batches whose blocks are read ahead."""
MIN_PIECE_BYTES = 512 << 10
"""The least that is requested at once where there is not enough memory for whole blocks."""


@dataclass(frozen=True)
class Found:
    """A pair as it was read. `sample` is None if its block could not be read, for `reason`."""

    shard: int
    row: int
    key: str
    sample: Sample | None
    more_captions: Sequence[str] = ()
    """Captions that are not in the shard."""
    more_languages: Sequence[str | None] = ()
    """The language of each of them."""
    reason: str = ""


@dataclass
class ReadStatistics:
    """Counts of requests to the store."""

    bytes: int = 0
    requests: int = 0
    sizes: list[int] = field(default_factory=list)
    """Of the first thousand requests."""

    def add(self, size: int) -> None:
        self.bytes += size
        self.requests += 1
        if len(self.sizes) < 1000:
            self.sizes.append(size)


Key = tuple[int, int]
"""A block, by its position in the epoch, and the number of a piece of it."""


@dataclass
class _Piece:
    """The pairs of a piece that this process uses, beginning with the block's pair number `first`."""

    first: int
    found: list[Found]
    left: int
    """Pairs that were not used yet."""


class BlockReader:
    """Reads the pairs of one epoch for some slots of its batches, at most `max_bytes` of them held at a time.

    Blocks are read whole if those that the readers of the slots need at the same time fit, else in equal pieces.
    """

    def __init__(self, order: EpochOrder, slots: range, max_bytes: int, statistics: ReadStatistics | None = None) -> None:
        self._order, self._index = order, order.order.index
        self._stretch, self._max_bytes = order.stretch(slots), max_bytes
        self.statistics = statistics or ReadStatistics()
        self._split = _pieces_of_a_block(order, len(self._stretch) // order.length, max_bytes)
        self._pieces: OrderedDict[Key, Future[_Piece]] = OrderedDict()
        self._held = 0
        """Bytes of the pieces that are held or being read."""
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="blocks")
        self._sequential = _SequentialShards(self._index, self.statistics)
        self._ranges = RangeReader(MAX_OPEN_SHARDS)
        self._following: dict[int, int] = {}
        """For each sequential shard the block behind the last one that was read."""

    def prefetch(self, place: Place) -> None:
        """Begin to read the blocks of pairs that are wanted soon, as far as there is memory."""
        for key in dict.fromkeys(map(self._key, place.block_M.tolist(), place.pair_M.tolist())):
            if key not in self._pieces and self._held < self._max_bytes:
                self._request(key)

    def read(self, place: Place) -> list[Found]:
        """Return pairs in this order. Raises DataError if a shard has changed."""
        return list(map(self._take, place.block_M.tolist(), place.pair_M.tolist()))

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._sequential.close()
        self._ranges.close()

    def _key(self, block: int, pair: int) -> Key:
        if self._split == 1 or self._is_sequential(block):
            return block, 0
        return block, pair * self._split // self._pairs(block)

    def _take(self, block: int, pair: int) -> Found:
        key = self._key(block, pair)
        if key not in self._pieces:
            self._request(key)
        self._pieces.move_to_end(key)
        piece = self._pieces[key].result()
        piece.left -= 1
        if piece.left == 0:
            del self._pieces[key]
            self._held -= self._bytes_of(key)
        return piece.found[pair - piece.first]

    def _request(self, key: Key) -> None:
        """Read a piece; those that were used least recently make room for it, and are read again if they are needed."""
        while self._pieces and self._held > self._max_bytes:
            removed, _ = self._pieces.popitem(last=False)
            self._held -= self._bytes_of(removed)
        block = key[0]
        if not self._is_sequential(block):
            self._pieces[key] = self._threads.submit(self._read, key)
            self._held += self._bytes_of(key)
            return
        shard = self._shard(block)
        for earlier in range(self._first_sequential(block, shard), block + 1):  # in the order in which they can be read
            if (earlier, 0) not in self._pieces:
                self._pieces[earlier, 0] = Future()
                self._pieces[earlier, 0].set_result(self._read((earlier, 0)))
                self._held += self._bytes_of((earlier, 0))
        self._following[shard] = block + 1

    def _first_sequential(self, block: int, shard: int) -> int:
        """Return the first block to read of a sequential shard, so that it is not read from its beginning again for each block.

        That is the block behind the last one that was read, else the first one of the window that `block` is in.
        """
        following = self._following.get(shard, block + 1)
        if following <= block:
            return following
        start = self._start(block)
        first = block
        while first > 0 and self._shard(first - 1) == shard and self._order.ends[first - 1] > self._stretch.start:
            if start - self._order.ends[first - 1] > self._order.order.window:
                break
            first -= 1
        return first

    def _shard(self, block: int) -> int:
        return int(self._index.blocks.shard[self._order.block_order[block]])

    def _is_sequential(self, block: int) -> bool:
        return self._index.shards[self._shard(block)].sequential

    def _pairs(self, block: int) -> int:
        return int(self._index.blocks.pairs[self._order.block_order[block]])

    def _start(self, block: int) -> int:
        """Return the position of a block's first pair in the epoch."""
        return int(self._order.ends[block]) - self._pairs(block)

    def _bytes_of(self, key: Key) -> int:
        block = key[0]
        whole = int(self._index.blocks.length[self._order.block_order[block]])
        return whole if self._is_sequential(block) else whole // self._split

    def _read(self, key: Key) -> _Piece:
        block = key[0]
        shard = self._shard(block)
        samples = self._index.load_samples(shard)
        first, rows = self._wanted(key, samples)
        length = int(samples.offset_N[rows[-1]] + samples.length_N[rows[-1]] - samples.offset_N[rows[0]])
        read: dict[int, Sample] = {}
        reason = ""
        for _ in range(2):
            try:
                read, reason = self._read_rows(shard, samples, rows[0], rows[-1] + 1, length), ""
                break
            except BROKEN_SHARD as error:
                url = self._index.shards[shard].url
                reason = f"shard {url}: {error}"
                log.warning("block %d of %s cannot be read: %s", self._order.block_order[block], url, error)
        found = [
            Found(shard, row, samples.key(row), read.get(row), samples.more_captions(row), samples.more_languages(row), reason)
            for row in rows
        ]
        return _Piece(first, found, len(found))

    def _wanted(self, key: Key, samples: ShardSamples) -> tuple[int, list[int]]:
        """Return the number of the first pair of a piece that lies in this process's stretch, and the rows of all that do."""
        block, number = key
        pairs, start = self._pairs(block), self._start(block)
        split = 1 if self._is_sequential(block) else self._split
        low, high = (-(-piece * pairs // split) for piece in (number, number + 1))
        low, high = max(low, self._stretch.start - start), min(high, self._stretch.stop - start)
        before = int(np.searchsorted(samples.training_rows, self._index.blocks.first[self._order.block_order[block]]))
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


def _pieces_of_a_block(order: EpochOrder, readers: int, max_bytes: int) -> int:
    """Return the number of pieces in which blocks are read, so that what the readers need at the same time fits."""
    blocks = order.order.index.blocks
    block_bytes, block_pairs = float(blocks.length.mean()), float(blocks.pairs.mean())
    most = max(1, int(block_bytes / MIN_PIECE_BYTES))
    beyond = (order.order.window + AHEAD * order.order.share) / block_pairs  # of a reader, in blocks, beside a piece in use
    room = max_bytes / (max(1, readers) * block_bytes) - beyond
    return most if room * most <= 1 else max(1, math.ceil(1 / room))


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

