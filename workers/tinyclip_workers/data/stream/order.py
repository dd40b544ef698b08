"""The order of an epoch, which does not depend on the cluster: global batch b is a function of (data, seed, epoch, b).

The blocks of a data set are shuffled for each epoch, and the sequence of their pairs is divided into equal stretches, one for
each of R *readers*. A reader shuffles its stretch within windows, and every global batch takes the same number of pairs from each
reader, in the order of the readers: a batch has N *slots*, of which reader r fills slots r*N/R to (r+1)*N/R. A process reads
the stretches of the readers of its slots only, from any position on: an order is computed from the index, without reading data.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.stream.languages import divide

MIN_READERS, PAIRS_PER_READER = 64, 16
"""Readers are at most as many as the pairs of a batch divided by PAIRS_PER_READER, or MIN_READERS if these are more. Many readers
mix a batch well and can be divided over many workers and loader processes; each one holds a block in memory."""
DISTINCT_BATCHES, DISTINCT_PAIRS = 64, 1 << 18
"""Batches among which pairs of equal value are exchanged; fewer of large ones, so that the pairs together are at most so many."""
_BLOCKS, _PHASE, _WINDOW, _LANGUAGE = 0, 1, 2, 3
"""Purposes of random draws."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Pairs of an epoch (M): the block of each, by its position in the epoch, and its number among the block's pairs."""

    block_M: Numbers
    pair_M: Numbers
    language_M: Numbers | None = None
    """The number of each pair's language, or -1 if it has a caption in none; None where languages are not distinguished."""


class SampleOrder:
    """The order of all epochs for one batch size."""

    def __init__(
        self,
        index: DatasetIndex,
        *,
        batch_size: int,
        seed: int,
        shuffle: int = 10_000,
        shuffle_bytes: int = 1 << 30,
        distinct: bool = False,
        readers: int | None = None,
        languages: int = 0,
    ) -> None:
        """`shuffle`: pairs of all readers that are drawn from at a time, as far as they fit `shuffle_bytes`.

        0: no shuffling, and a single reader, which keeps the order of the shards.

        `distinct`: no two pairs of a batch have the same value, as far as exchanges with other batches make that possible.

        `languages`: the number of languages among which the pairs of each batch are divided.
        """
        self.languages = languages
        self.index, self.batch_size, self.shuffle, self.distinct = index, batch_size, shuffle, distinct
        self.entropy = [seed, int(index.digest[:15], 16)]
        self.batches = index.pairs // batch_size
        """Of an epoch; the pairs of its end that fill no batch are left out."""
        self.readers = readers or reader_count(batch_size, None if shuffle else 1)
        self.share = batch_size // self.readers
        """Pairs of a batch from each reader."""
        self.window = max(self.share, _window(index, self.readers, shuffle, shuffle_bytes))
        """Pairs among which a reader shuffles; not fewer than those of a batch, in which their order does not matter."""

    def epoch(self, number: int) -> "EpochOrder":
        return EpochOrder(self, number)

    def readers_of(self, slots: range) -> range:
        """Return the readers that fill these slots of a batch."""
        return range(slots.start // self.share, -(-slots.stop // self.share))


def reader_count(batch_size: int, most: int | None = None) -> int:
    """Return the number of readers: the largest divisor of the batch size within the limit, or within `most`."""
    limit = max(MIN_READERS, batch_size // PAIRS_PER_READER) if most is None else most
    return max(count for count in range(1, min(limit, batch_size) + 1) if batch_size % count == 0)


def _window(index: DatasetIndex, readers: int, shuffle: int, shuffle_bytes: int) -> int:
    """Return the pairs of a reader's window."""
    mean_bytes = int(index.blocks.length.sum()) / max(1, index.pairs)
    fitting = int(shuffle_bytes / 2 / max(1.0, mean_bytes))  # a window may begin and end in the middle of blocks
    return max(1, min(shuffle, fitting) // readers)


class EpochOrder:
    """The order of one epoch."""

    def __init__(self, order: SampleOrder, number: int) -> None:
        self.order, self.number = order, number
        self.block_order = _shuffled_blocks(order, number)
        """Blocks of the index, in the order of this epoch."""
        pairs = order.index.blocks.pairs[self.block_order].astype(np.int64)
        self.ends = np.cumsum(pairs)
        """For each block the pairs of the epoch up to its end."""
        self.length = order.batches * order.share
        """Pairs of each reader."""
        self._windows = lru_cache(4 * order.readers)(self._window)
        self._segments = lru_cache(2)(self._distinct_segment)

    def batch(self, number: int, slots: range | None = None) -> Place:
        """Return the pairs of a global batch, or of some of its slots, in the order of the slots.

        Raises IndexError if the epoch has no such batch.
        """
        if not 0 <= number < self.order.batches:
            raise IndexError(f"an epoch has {self.order.batches} batches, there is no batch {number}")
        slots = range(self.order.batch_size) if slots is None else slots
        place = self.place(self._places(number, slots))
        return replace(place, language_M=self._languages(number)[slots.start : slots.stop]) if self.order.languages else place

    def _places(self, number: int, slots: range) -> Numbers:
        if self.order.distinct:
            segment, within = divmod(number, self._segment_batches())
            return self._segments(segment)[within, slots.start : slots.stop]
        return self._batch_places(number, self.order.readers_of(slots), slots)

    def _languages(self, number: int) -> Numbers:
        """Return the language of each pair of a batch: all processes divide the whole batch, in the same way."""
        index, found = self.order.index, self.place(self._places(number, range(self.order.batch_size)))
        lacking_N = index.lacking(index.first_pairs[self.block_order[found.block_M]] + found.pair_M)
        return divide(lacking_N, self.order.languages, self._rng(_LANGUAGE, number))

    def place(self, places_M: Numbers) -> Place:
        """Convert positions among all pairs of the epoch."""
        block_M = np.searchsorted(self.ends, places_M, side="right")
        starts_M = self.ends[block_M] - self.order.index.blocks.pairs[self.block_order[block_M]]
        return Place(block_M, places_M - starts_M)

    def stretch(self, slots: range) -> range:
        """Return the positions among all pairs of the epoch that these slots of all batches fill."""
        readers = self.order.readers_of(slots)
        return range(readers.start * self.length, readers.stop * self.length)

    def _batch_places(self, number: int, readers: range, slots: range) -> Numbers:
        share = self.order.share
        first = number * share
        parts = [self._reader_places(reader, first, first + share) for reader in readers]
        start = slots.start - readers.start * share
        return np.concatenate(parts)[start : start + len(slots)]

    def _reader_places(self, reader: int, start: int, stop: int) -> Numbers:
        """Return the places of a reader's pairs number `start` to `stop`, after its shuffling."""
        found = []
        while start < stop:
            window, window_start = self._window_at(reader, start)
            places = self._windows(reader, window)
            part = places[start - window_start : stop - window_start]
            found.append(part)
            start += len(part)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _window_at(self, reader: int, pair: int) -> tuple[int, int]:
        """Return number and first pair of the window that a reader's pair is in."""
        phase, size = self._phase(reader), self.order.window
        if pair < phase:
            return 0, 0
        window = 1 + (pair - phase) // size
        return window, phase + (window - 1) * size

    def _phase(self, reader: int) -> int:
        """Return the length of a reader's first window: different ones, so that not all readers begin a window at once."""
        return 1 + (reader * self.order.window) // self.order.readers

    def _window(self, reader: int, window: int) -> Numbers:
        phase, size = self._phase(reader), self.order.window
        start = 0 if window == 0 else phase + (window - 1) * size
        stop = min(self.length, phase if window == 0 else start + size)
        places = np.arange(reader * self.length + start, reader * self.length + stop)
        if self.order.shuffle:
            self._rng(_WINDOW, reader, window).shuffle(places)
        return places

    def _rng(self, purpose: int, *which: int) -> np.random.Generator:
        return np.random.default_rng([*self.order.entropy, self.number, purpose, *which])

    def _segment_batches(self) -> int:
        return max(1, min(DISTINCT_BATCHES, DISTINCT_PAIRS // self.order.batch_size))

    def _distinct_segment(self, segment: int) -> Numbers:
        """Return the places of successive batches (M, N), with pairs exchanged so that the values in each batch differ."""
        first = segment * self._segment_batches()
        count = min(self.order.batches - first, self._segment_batches())
        share = self.order.share
        readers = [self._reader_places(each, first * share, (first + count) * share) for each in range(self.order.readers)]
        places_MN = np.stack(readers).reshape(-1, count, share).transpose(1, 0, 2).reshape(count, -1)
        values_MN = self._values(places_MN.ravel()).reshape(places_MN.shape)
        separate(places_MN, values_MN, share)
        return places_MN

    def _values(self, places_M: Numbers) -> NDArray[np.uint64]:
        """Return the hashed values of pairs that no two of a batch share."""
        index, found = self.order.index, self.place(places_M)
        return index.values(index.first_pairs[self.block_order[found.block_M]] + found.pair_M)


def _shuffled_blocks(order: SampleOrder, epoch: int) -> Numbers:
    """Return the blocks of an epoch in random order. Those of a sequential shard stay together: it is read from its beginning."""
    blocks = order.index.blocks
    if not order.shuffle:
        return np.arange(len(blocks))
    rng = np.random.default_rng([*order.entropy, epoch, _BLOCKS])
    key = rng.permutation(len(blocks)).astype(np.int64)
    sequential = np.fromiter((shard.sequential for shard in order.index.shards), bool, len(order.index.shards))
    if sequential.any():
        together = sequential[blocks.shard]
        starts = np.flatnonzero(np.r_[True, blocks.shard[1:] != blocks.shard[:-1]])
        first = starts[np.searchsorted(starts, np.arange(len(blocks)), side="right") - 1]
        return np.argsort(np.where(together, key[first], key), kind="stable")
    shuffled = np.empty_like(key)
    shuffled[key] = np.arange(len(key))
    return shuffled


def separate(places_MN: Numbers, values_MN: NDArray[np.uint64], share: int) -> None:
    """Exchange pairs between batches, in place, so that equal values are in different ones. Value 0 is equal to none.

    A pair is exchanged only with one of the same reader, which fills `share` neighbouring slots. Pairs for which there is no
    exchange stay where they are.
    """
    counts = [Counter(values_N.tolist()) for values_N in values_MN]
    for batch, slot in list(_repeated(values_MN)):
        value = int(values_MN[batch, slot])
        if counts[batch][value] < 2:  # the other pair has been exchanged
            continue
        found = _exchange(values_MN, counts, batch, slot, share)
        if found is None:
            continue
        other, place = found
        theirs = int(values_MN[other, place])
        for array in (places_MN, values_MN):
            array[batch, slot], array[other, place] = array[other, place], array[batch, slot]
        counts[batch].update({value: -1, theirs: 1})
        counts[other].update({value: 1, theirs: -1})


def _repeated(values_MN: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Yield batch and slot of each pair whose value a pair before it in its batch has."""
    for batch, values_N in enumerate(values_MN):
        _, first = np.unique(values_N, return_index=True)
        repeated = np.ones(len(values_N), dtype=bool)
        repeated[first] = False
        for slot in np.flatnonzero(repeated & (values_N != 0)):
            yield batch, int(slot)


def _exchange(
    values_MN: NDArray[np.uint64], counts: Sequence[Counter[int]], batch: int, slot: int, share: int
) -> tuple[int, int] | None:
    """Return batch and slot of the first pair, from the next batch on, with which an exchange repeats no value."""
    value, start = int(values_MN[batch, slot]), slot // share * share
    for step in range(1, len(values_MN)):
        other = (batch + step) % len(values_MN)
        if counts[other][value]:
            continue
        for place, theirs in enumerate(values_MN[other, start : start + share].tolist(), start):
            if not (theirs and counts[batch][theirs]):
                return other, place
    return None
