"""Tables of texts by hash, and the shard that has the embeddings of each.

Every shard first has all its texts. Where several shards have the same text, the first of them keeps its embeddings. That is
decided for one range of hashes at a time, so its memory does not depend on the number of texts.

M texts of a shard, D texts of all shards in a range of hashes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUCKET_COUNT = 256
"""Ranges of hashes: by their first byte."""
_BYTE_SHIFT = np.uint64(56)

Hashes = NDArray[np.uint64]
"""Hashes in two halves (2, …)."""
Numbers = NDArray[np.int32]


def hash_of(text: str) -> tuple[int, int]:
    """Return the first 16 bytes of a text's SHA-256, as two numbers. Raises UnicodeEncodeError."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


@dataclass(frozen=True)
class TextTable:
    """The texts of a shard, sorted by hash."""

    hashes_2M: Hashes
    owners_M: Numbers
    """The shard that has a text's embeddings."""
    places_M: Numbers
    """A text's number among all texts of that shard, in the order in which they occur there."""

    @classmethod
    def of(cls, shard: int, hashes: Iterable[tuple[int, int]]) -> "TextTable":
        """Make the table of a shard that has the embeddings of all its texts, given in the order in which they occur."""
        hashes_2M = np.array(list(hashes), dtype=np.uint64).reshape(-1, 2).T
        order = np.lexsort(hashes_2M[::-1])
        return cls(hashes_2M[:, order], np.full(len(order), shard, np.int32), order.astype(np.int32))

    def find(self, text: str) -> tuple[int, int] | None:
        """Return owner and place of a text; None if the shard has no such text."""
        high, low = hash_of(text)
        at = int(np.searchsorted(self.hashes_2M[0], np.uint64(high)))
        while at < self.hashes_2M.shape[1] and int(self.hashes_2M[0, at]) == high:
            if int(self.hashes_2M[1, at]) == low:
                return int(self.owners_M[at]), int(self.places_M[at])
            at += 1
        return None

    def buckets(self) -> Numbers:
        """Return the limits of each range of hashes in the table (257)."""
        firsts_M = (self.hashes_2M[0] >> _BYTE_SHIFT).astype(np.int64)
        return np.searchsorted(firsts_M, np.arange(BUCKET_COUNT + 1)).astype(np.int32)


@dataclass(frozen=True)
class Duplicates:
    """Texts that an earlier shard has as well (D), sorted by shard and place."""

    shards_D: Numbers
    places_D: Numbers
    owners_D: Numbers
    """The first shard that has the text."""
    owner_places_D: Numbers


def find_duplicates(hashes_2D: Hashes, shards_D: Numbers, places_D: Numbers) -> Duplicates:
    """Find the texts that several shards have, in a range of hashes."""
    order = np.lexsort((shards_D, hashes_2D[1], hashes_2D[0]))
    hashes_2D, shards_D, places_D = hashes_2D[:, order], shards_D[order], places_D[order]
    same_D = np.zeros(len(order), dtype=bool)
    same_D[1:] = (hashes_2D[:, 1:] == hashes_2D[:, :-1]).all(axis=0)
    first_D = np.maximum.accumulate(np.where(same_D, 0, np.arange(len(order))))
    found = np.flatnonzero(same_D)
    found = found[np.lexsort((places_D[found], shards_D[found]))]
    return Duplicates(shards_D[found], places_D[found], shards_D[first_D[found]], places_D[first_D[found]])


def resolve_duplicates(table: TextTable, duplicates: Duplicates) -> tuple[TextTable, Numbers]:
    """Return a shard's table with the owners of duplicates, all of them of this shard, and the places that the shard keeps."""
    owners_M, places_M = table.owners_M.copy(), table.places_M.copy()
    by_place = np.argsort(table.places_M)
    at = by_place[duplicates.places_D]
    owners_M[at], places_M[at] = duplicates.owners_D, duplicates.owner_places_D
    kept = np.ones(len(places_M), dtype=bool)
    kept[duplicates.places_D] = False
    return TextTable(table.hashes_2M, owners_M, places_M), np.flatnonzero(kept).astype(np.int32)
