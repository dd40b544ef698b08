"""Which tokens of another language a token stands for, found in translated captions: IBM's model 1 (Brown et al., 1993).

Each token of a translation is explained by one of the tokens of the caption, whichever the other captions make probable.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
KEPT, MIN_SHARE = 8, 0.05
"""Tokens that one stands for: at most so many, of at least this probability."""

Weighted = list[tuple[int, float]]
"""Ids with their weights, which add up to 1."""


def align(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[int, Weighted]:
    """Return for each token on the left the tokens on the right that it stands for, most probable first.

    `pairs`: the tokens of captions and of their translations.
    """
    found = [_links(left, right) for left, right in pairs if left and right]
    if not found:
        return {}
    offsets = np.cumsum([0] + [len(right) for left, right in pairs if left and right])
    left_K = np.concatenate([left for left, _, _ in found])
    right_K = np.concatenate([right for _, right, _ in found])
    place_K = np.concatenate([place + offset for (_, _, place), offset in zip(found, offsets, strict=False)])
    keys, link_K = np.unique(left_K << 32 | right_K, return_inverse=True)
    left_U, right_U = keys >> 32, keys & 0xFFFFFFFF
    share_U: NDArray[np.float64] = np.ones(len(keys))
    for _ in range(ROUNDS):
        weight_K = share_U[link_K]
        weight_K /= np.bincount(place_K, weight_K)[place_K]  # of each token on the right, over those on the left
        count_U = np.bincount(link_K, weight_K, minlength=len(keys))
        share_U = count_U / np.bincount(left_U, count_U)[left_U]
    return _best(left_U, right_U, share_U)


def _links(left: Sequence[int], right: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return every pair of a token on the left and one on the right, and the place of the latter."""
    own, theirs = np.asarray(left, np.int64), np.asarray(right, np.int64)
    return np.tile(own, len(theirs)), np.repeat(theirs, len(own)), np.repeat(np.arange(len(theirs)), len(own))


def _best(left_U: NDArray[np.int64], right_U: NDArray[np.int64], share_U: NDArray[np.float64]) -> dict[int, Weighted]:
    chosen: dict[int, Weighted] = {}
    for key in np.lexsort((right_U, -share_U, left_U)).tolist():
        weights = chosen.setdefault(int(left_U[key]), [])
        if len(weights) < KEPT and (share_U[key] >= MIN_SHARE or not weights):
            weights.append((int(right_U[key]), float(share_U[key])))
    return {token: [(id, weight / sum(w for _, w in weights)) for id, weight in weights] for token, weights in chosen.items()}
