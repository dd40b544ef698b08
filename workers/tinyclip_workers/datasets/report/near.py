"""Near-duplicates among hashes: pairs of equal hashes, or of hashes of which few bits differ, with bounded time and memory.

Two hashes of 64 bits that differ in at most three are equal in one of four bands of 16 bits.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tinyclip_workers.datasets.images.checks import MAX_DISTANCE

BANDS = MAX_DISTANCE + 1
BAND_BITS = 64 // BANDS
LARGEST_BUCKET = 256
"""Hashes with an equal band that are all compared; of more, each with its neighbours among the sorted ones."""
NEIGHBOURS = 8

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]


def band(hash_N: Hashes, number: int) -> NDArray[np.uint64]:
    return (hash_N >> np.uint64(BAND_BITS * number)) & np.uint64((1 << BAND_BITS) - 1)


def near_pairs(hash_U: Hashes) -> tuple[Rows, Rows]:
    """Return the pairs (first, second) of different sorted hashes that are near to each other, each once."""
    found = [np.zeros((0, 2), np.int64)]
    for number in range(BANDS):
        band_U = band(hash_U, number)
        order_U = np.argsort(band_U, kind="stable")
        for first, second in _neighbours(band_U[order_U]):
            pair = np.sort(np.stack([order_U[first], order_U[second]], axis=1), axis=1)
            near = np.bitwise_count(hash_U[pair[:, 0]] ^ hash_U[pair[:, 1]]) <= MAX_DISTANCE
            found.append(pair[near])
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _neighbours(band_U: NDArray[np.uint64]) -> Iterator[tuple[Rows, Rows]]:
    """Yield positions of sorted bands that are to be compared: those at distance 1, 2, … that are equal."""
    starts = np.flatnonzero(np.concatenate([[True], band_U[1:] != band_U[:-1]])) if len(band_U) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(band_U)))
    reach_U = np.repeat(np.where(sizes > LARGEST_BUCKET, NEIGHBOURS, sizes), sizes)
    for step in range(1, min(LARGEST_BUCKET, len(band_U) - 1) + 1):
        first = np.flatnonzero((band_U[step:] == band_U[:-step]) & (reach_U[:-step] >= step))
        if not len(first):
            return
        yield first, first + step


class NearHashes:
    """A set of hashes, sorted by each band, in which those near to others are looked up."""

    def __init__(self, hash_T: Hashes) -> None:
        self._hash_T = hash_T
        self._orders = [np.argsort(band(hash_T, number), kind="stable") for number in range(BANDS)]
        self._bands = [band(hash_T, number)[order] for number, order in enumerate(self._orders)]
        self._order = np.argsort(hash_T, kind="stable")

    def find(self, hash_N: Hashes) -> tuple[Rows, Rows]:
        """Return the pairs (row of `hash_N`, row of the set) that are near to each other, each once."""
        found = [self._lookup(hash_N, hash_N, self._hash_T[self._order], self._order, LARGEST_BUCKET)]
        for number, order in enumerate(self._orders):
            found.append(self._lookup(hash_N, band(hash_N, number), self._bands[number], order, LARGEST_BUCKET))
        pairs = np.unique(np.concatenate(found), axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _lookup(self, hash_N: Hashes, value_N: Hashes, sorted_T: Hashes, order_T: Rows, most: int) -> NDArray[np.int64]:
        """Return pairs whose value is equal and whose hashes are near, of at most `most` rows of the set for each row."""
        low, high = np.searchsorted(sorted_T, value_N, "left"), np.searchsorted(sorted_T, value_N, "right")
        count_N = np.minimum(high - low, most)
        first = np.repeat(np.arange(len(hash_N)), count_N)
        place = np.arange(len(first)) - np.repeat(np.cumsum(count_N) - count_N, count_N) + np.repeat(low, count_N)
        second = order_T[place]
        near = np.bitwise_count(hash_N[first] ^ self._hash_T[second]) <= MAX_DISTANCE
        return np.stack([first[near], second[near]], axis=1).astype(np.int64)
