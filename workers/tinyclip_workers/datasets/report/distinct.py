"""The number of different captions, exactly or from a sample of their hashes, with bounded memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyclip_workers.datasets.scan.merging import Parts
from tinyclip_workers.datasets.scan.parts import Marks

MAX_HASHES = 8_000_000
"""Captions that are compared at most, each 8 bytes; of more, those whose hash is divisible by some number."""


@dataclass(frozen=True)
class DistinctCaptions:
    """How captions repeat."""

    distinct: int
    repeated_samples: int
    """Samples without a caption of their own."""
    estimated: bool


def count_distinct(parts: Parts, captions: int) -> DistinctCaptions:
    """Count the different texts of that many captions, in two passes over the parts. Raises OSError."""
    divisor = np.uint64(-(-captions // MAX_HASHES) or 1)
    chosen = [hashes[hashes % divisor == 0] for marks, _ in parts if len(hashes := marks.caption_hashes)]
    texts, counts = np.unique(np.concatenate(chosen), return_counts=True) if chosen else (np.zeros(0, np.uint64), np.zeros(0))
    repeated = texts[counts > 1]
    samples = sum(_repeated_samples(marks, repeated, divisor) for marks, _ in parts)
    # Of a sampled text, all occurrences are counted, so both scale with the number of texts.
    return DistinctCaptions(int(len(texts) * divisor), samples, bool(divisor > 1))


def _repeated_samples(marks: Marks, repeated: NDArray[np.uint64], divisor: np.uint64) -> int:
    """Return the samples whose captions are all repeated; with a divisor, an estimate from those whose first one is sampled."""
    hashes, count_N = marks.caption_hashes, marks.caption_counts_N
    if not len(hashes):
        return 0
    is_repeated = np.isin(hashes, repeated)
    first_N = np.concatenate([[0], np.cumsum(count_N)[:-1]])[count_N > 0]
    if divisor > 1:
        sampled = hashes[first_N] % divisor == 0
        return int(is_repeated[first_N][sampled].sum()) * int(divisor)
    return int(np.minimum.reduceat(is_repeated, first_N).sum())
