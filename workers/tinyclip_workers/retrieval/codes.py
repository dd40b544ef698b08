"""The vectors of a segment and their codes: how they are written, compared with a query, and read back.

- `float`: 4 bytes a number. A search compares all of them.
- `int8`: one byte a number and a scale for each row, after a random rotation, which makes all numbers similarly large.
- `binary`: also one bit a number, the side of the segment's centre on each rotated axis. Bits are compared first, with 4 bits for
  each number of the query, and the best candidates by their int8 codes: RaBitQ (Gao & Long 2024, arXiv 2405.12497).

Shapes: N rows, E numbers of a vector, K hits, W words of 64 bits, J bits of a query's numbers.
"""

from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tinyclip.artifacts.paths import (
    SEGMENT_BITS,
    SEGMENT_CENTER,
    SEGMENT_FACTORS,
    SEGMENT_SCALES,
    SEGMENT_VECTORS,
)
from tinyclip.schemas.indexes import IndexCodes

from tinyclip_workers.retrieval.recall import Rows
from tinyclip_workers.types import Matrix

WIDTHS = (20, 40, 80, 160, 320, 640, 1280)
"""Candidates of binary codes for ten hits, tried in this order until the recall on the sample suffices."""
QUERY_BITS = 4
ROWS_AT_ONCE = 512
"""Rows of int8 codes that are converted at once: they stay in the cache."""
WORDS_AT_ONCE = 8192
"""Rows of binary codes that are compared at once."""
ROTATION_SEED = 0
FLOATS = f"float-{SEGMENT_VECTORS}"
"""A segment's floats while its codes are written."""


class Vectors(Protocol):
    """The vectors of one segment, open for searching."""

    count: int
    size: int
    """Numbers of a vector (E)."""

    def nearest(self, query_E: Matrix, top_k: int, candidates: Rows | None = None, removed: Rows | None = None) -> "Nearest":
        """Return the rows with the largest cosines among `candidates`, or all but those `removed`, nearest first.

        Equal ones are in order. `top_k` is at most the number of rows to choose from.
        """
        ...

    def rows(self, rows: Rows) -> Matrix:
        """Return vectors in floats, of unit length up to rounding."""
        ...


Nearest = tuple[Rows, Matrix]
"""Rows and their cosines."""


def open_vectors(folder: Path, codes: IndexCodes, width: int) -> Vectors:
    """Open a segment's vectors, memory-mapped. `width`: candidates of binary codes. Raises FileNotFoundError."""
    if codes == "float":
        return FloatVectors(folder)
    return Int8Vectors(folder) if codes == "int8" else BinaryVectors(folder, width)


def leading(vectors: Matrix, size: int) -> Matrix:
    """Return the leading numbers of vectors, (E,) or (N, E), normalised again."""
    if vectors.shape[-1] == size:
        return vectors
    cut = vectors[..., :size]
    shorter: Matrix = cut / np.maximum(np.linalg.norm(cut, axis=-1, keepdims=True), 1e-12)
    return shorter


class FloatVectors:
    def __init__(self, folder: Path) -> None:
        self.vectors_NE: Matrix = np.load(folder / SEGMENT_VECTORS, mmap_mode="r")
        self.count, self.size = self.vectors_NE.shape

    def nearest(self, query_E: Matrix, top_k: int, candidates: Rows | None = None, removed: Rows | None = None) -> Nearest:
        if candidates is not None:
            return _best(candidates, self.vectors_NE[candidates] @ query_E, top_k)
        return _best_but(self.vectors_NE @ query_E, top_k, removed)

    def rows(self, rows: Rows) -> Matrix:
        vectors_NE: Matrix = self.vectors_NE[rows]
        return vectors_NE


class Int8Vectors:
    def __init__(self, folder: Path) -> None:
        self._codes_NE: npt.NDArray[np.int8] = np.load(folder / SEGMENT_VECTORS, mmap_mode="r")
        self._scales_N: Matrix = np.load(folder / SEGMENT_SCALES, mmap_mode="r")
        self.count, self.size = self._codes_NE.shape

    def nearest(self, query_E: Matrix, top_k: int, candidates: Rows | None = None, removed: Rows | None = None) -> Nearest:
        query_E = rotation(self.size) @ query_E
        if candidates is not None:
            return _best(candidates, self.cosines(query_E, candidates), top_k)
        return _best_but(self.cosines(query_E), top_k, removed)

    def cosines(self, rotated_E: Matrix, rows: Rows | None = None) -> Matrix:
        """Return the cosines of rows, or of all, with a query that is rotated already."""
        count = self.count if rows is None else len(rows)
        scores_N: Matrix = np.empty(count, np.float32)
        for start in range(0, count, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            scores_N[part] = self._codes_NE[part if rows is None else rows[part]].astype(np.float32) @ rotated_E
        scores_N *= self._scales_N if rows is None else self._scales_N[rows]
        return scores_N

    def rows(self, rows: Rows) -> Matrix:
        rotated_NE: Matrix = self._codes_NE[rows].astype(np.float32) * self._scales_N[rows, None]
        vectors_NE: Matrix = rotated_NE @ rotation(self.size)
        return vectors_NE


class BinaryVectors:
    def __init__(self, folder: Path, width: int) -> None:
        self._int8 = Int8Vectors(folder)
        self._bits_WN: npt.NDArray[np.uint64] = np.load(folder / SEGMENT_BITS, mmap_mode="r")
        self._factors_N: Matrix = np.load(folder / SEGMENT_FACTORS, mmap_mode="r")
        self.count, self.size, self.width = self._int8.count, self._int8.size, width

    def nearest(self, query_E: Matrix, top_k: int, candidates: Rows | None = None, removed: Rows | None = None) -> Nearest:
        rotated_E = rotation(self.size) @ query_E
        wanted = max(self.width, -(-self.width * top_k // 10))
        if candidates is None or len(candidates) > wanted:
            estimates = self._estimates(rotated_E, candidates)
            if candidates is None:
                candidates, _ = _best_but(estimates, min(wanted, self.count - _length(removed)), removed)
            else:
                candidates, _ = _best(candidates, estimates, wanted)
        candidates = np.sort(candidates)
        return _best(candidates, self._int8.cosines(rotated_E, candidates), top_k)

    def rows(self, rows: Rows) -> Matrix:
        return self._int8.rows(rows)

    def _estimates(self, rotated_E: Matrix, rows: Rows | None) -> Matrix:
        """Return estimates of the products with a query, up to a constant of the segment and a factor of the query."""
        planes_JW, count = _query_planes(rotated_E), self.count if rows is None else len(rows)
        products_N: Matrix = np.empty(count, np.float32)
        for start in range(0, count, WORDS_AT_ONCE):
            part = slice(start, start + WORDS_AT_ONCE)
            bits_Wn = self._bits_WN[:, part if rows is None else rows[part]]
            products_N[part] = (2**QUERY_BITS - 1) * self.size - 2 * _weighted_distances(bits_Wn, planes_JW)
        products_N *= self._factors_N if rows is None else self._factors_N[rows]
        return products_N


def write_codes(folder: Path, codes: IndexCodes) -> None:
    """Write the codes of a segment's floats (`vectors.npy`), whose file becomes FLOATS."""
    assert codes != "float", "floats are what is replaced"
    (folder / SEGMENT_VECTORS).rename(folder / FLOATS)
    vectors_NE: Matrix = np.load(folder / FLOATS, mmap_mode="r")
    _write_int8(folder, vectors_NE)
    if codes == "binary":
        _write_bits(folder, vectors_NE)


def _write_int8(folder: Path, vectors_NE: Matrix) -> None:
    codes_NE = np.lib.format.open_memmap(folder / SEGMENT_VECTORS, "w+", np.int8, vectors_NE.shape)
    scales_N = np.lib.format.open_memmap(folder / SEGMENT_SCALES, "w+", np.float32, vectors_NE.shape[:1])
    for part in _parts(len(vectors_NE)):
        rotated_NE = vectors_NE[part] @ rotation(vectors_NE.shape[1]).T
        scales_N[part] = np.maximum(np.abs(rotated_NE).max(axis=1), 1e-12) / 127
        codes_NE[part] = np.rint(rotated_NE / scales_N[part, None])
    codes_NE.flush()
    scales_N.flush()


def _write_bits(folder: Path, vectors_NE: Matrix) -> None:
    """Write the sides of the centre, and the factor of each row that makes estimates unbiased."""
    count, size = vectors_NE.shape
    center_E = sum((vectors_NE[part].sum(axis=0, dtype=np.float64) for part in _parts(count)), np.zeros(size)) / max(1, count)
    np.save(folder / SEGMENT_CENTER, center_E.astype(np.float32))
    bits_WN = np.lib.format.open_memmap(folder / SEGMENT_BITS, "w+", np.uint64, (-(-size // 64), count))
    factors_N = np.lib.format.open_memmap(folder / SEGMENT_FACTORS, "w+", np.float32, (count,))
    for part in _parts(count):
        centred_NE = (vectors_NE[part] - center_E.astype(np.float32)) @ rotation(size).T
        bits_WN[:, part] = _words(centred_NE > 0).T
        factors_N[part] = np.square(centred_NE).sum(axis=1) / np.maximum(np.abs(centred_NE).sum(axis=1), 1e-12)
    bits_WN.flush()
    factors_N.flush()


@lru_cache(maxsize=8)
def rotation(size: int) -> Matrix:
    """Return an orthogonal matrix (E, E), random but the same everywhere up to rounding."""
    q_EE, r_EE = np.linalg.qr(np.random.default_rng(ROTATION_SEED).standard_normal((size, size)))
    rotation_EE: Matrix = (q_EE * np.sign(np.diag(r_EE))).astype(np.float32)
    return rotation_EE


def _query_planes(rotated_E: Matrix) -> npt.NDArray[np.uint64]:
    """Return the bits (J, W) of a query's numbers, rounded to odd multiples of half a step from -7.5 to 7.5 steps."""
    largest, levels = float(np.abs(rotated_E).max()), 2**QUERY_BITS
    step = max(largest, 1e-12) / (levels / 2 - 0.5)
    levels_E = np.clip(np.rint(rotated_E / step + levels / 2 - 0.5), 0, levels - 1).astype(np.uint8)
    return np.stack([_words((levels_E >> bit & 1).astype(bool)[None])[0] for bit in range(QUERY_BITS)])


def _words(signs_NE: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """Return bits as words (N, W); the last one is filled with zeros."""
    packed = np.packbits(signs_NE, axis=1, bitorder="little")
    padded = np.zeros((len(packed), -(-signs_NE.shape[1] // 64) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _weighted_distances(bits_WN: npt.NDArray[np.uint64], planes_JW: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Return the sums of Hamming distances to the planes, of which plane j counts 2^j times."""
    count = bits_WN.shape[1]
    different_N, ones_N = np.empty(count, np.uint64), np.empty(count, np.uint8)  # reused: new ones would cost more than the sums
    total_N = np.zeros(count, np.int32)
    for bit, plane_W in enumerate(planes_JW):
        distance_N = np.zeros(count, np.uint16)
        for bits_N, word in zip(bits_WN, plane_W, strict=True):
            np.bitwise_xor(bits_N, word, out=different_N)
            np.bitwise_count(different_N, out=ones_N)
            np.add(distance_N, ones_N, out=distance_N)
        total_N += distance_N.astype(np.int32) << bit
    return total_N


def _best_but(scores_N: Matrix, top_k: int, removed: Rows | None) -> Nearest:
    """Return the best of all rows but those removed."""
    if removed is not None:
        scores_N[removed] = -np.inf
    return _best(None, scores_N, top_k)


def _best(candidates: Rows | None, scores_N: Matrix, top_k: int) -> Nearest:
    """Return the rows with the largest scores, largest first, equal ones in order."""
    best = np.sort(np.argpartition(-scores_N, top_k - 1)[:top_k]) if top_k else np.empty(0, np.int64)
    best = best[np.argsort(-scores_N[best], kind="stable")]
    return (best if candidates is None else candidates[best]), scores_N[best]


def _length(rows: Rows | None) -> int:
    return 0 if rows is None else len(rows)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + 4096) for start in range(0, count, 4096)]
