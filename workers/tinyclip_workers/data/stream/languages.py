"""The languages of a batch: as many pairs of each as of any other, as far as the captions of the pairs allow it.

N pairs of a batch, L languages.
"""

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""The language of a pair without a caption in any."""

Numbers = NDArray[np.int64]


def divide(lacking_N: NDArray[np.uint64], languages: int, rng: np.random.Generator) -> Numbers:
    """Return the language of each pair, by its number. `lacking_N`: as bits, the languages in which a pair has no caption.

    The counts of the languages differ by at most one if every pair has captions in all of them; else they are as equal as any
    division makes them (Harvey et al., "Semi-matchings for bipartite graphs and load balancing", 2003).
    """
    order_N, order_L = rng.permutation(len(lacking_N)), rng.permutation(languages)
    language_N = np.empty(len(lacking_N), np.int64)
    if not lacking_N.any():
        language_N[order_N] = order_L[np.arange(len(lacking_N)) % languages]
        return language_N
    has_NL = (lacking_N[order_N, None] >> order_L.astype(np.uint64)) & np.uint64(1) == 0
    chosen_N = _fewest_first(has_NL)
    while (path := _improving_path(has_NL, chosen_N)) is not None:
        for before, after in path:  # from its end: a language loses a pair only after it has got one
            chosen_N[np.flatnonzero((chosen_N == before) & has_NL[:, after])[0]] = after
    language_N[order_N] = np.where(chosen_N == NONE, NONE, order_L[chosen_N])
    return language_N


def _fewest_first(has_NL: NDArray[np.bool_]) -> Numbers:
    """Give each pair the language that has the fewest so far; pairs with the smallest choice come first."""
    chosen_N, count_L = np.full(len(has_NL), NONE, np.int64), np.zeros(has_NL.shape[1], np.int64)
    for pair in np.argsort(has_NL.sum(axis=1), kind="stable"):
        if has_NL[pair].any():
            language = int(np.where(has_NL[pair], count_L, np.iinfo(np.int64).max).argmin())
            chosen_N[pair] = language
            count_L[language] += 1
    return chosen_N


def _improving_path(has_NL: NDArray[np.bool_], chosen_N: Numbers) -> list[tuple[int, int]] | None:
    """Return the moves, the last one first, that take a pair from one language to another with at least two fewer pairs.

    Each move gives a pair of one language another one that it has. None if there are no such moves: the counts are optimal.
    """
    languages = has_NL.shape[1]
    count_L = np.bincount(chosen_N[chosen_N != NONE], minlength=languages)
    movable_LL = np.stack([has_NL[chosen_N == language].any(axis=0) for language in range(languages)])
    for start in np.argsort(-count_L, kind="stable").tolist():
        before, waiting = {start: start}, [start]
        for language in waiting:
            for other in np.flatnonzero(movable_LL[language]).tolist():
                if other in before:
                    continue
                before[other] = language
                waiting.append(other)
                if count_L[other] <= count_L[start] - 2:
                    return _moves_to(other, start, before)
    return None


def _moves_to(end: int, start: int, before: dict[int, int]) -> list[tuple[int, int]]:
    moves = []
    while end != start:
        moves.append((before[end], end))
        end = before[end]
    return moves
