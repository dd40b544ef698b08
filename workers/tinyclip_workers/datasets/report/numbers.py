"""Summaries of counted values: means and percentiles."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray


def summary(values: Counter[int], *percentiles: int) -> dict[str, float]:
    """Return minimum, mean or percentiles, and maximum of counted values, as `{"min", "p5", "median", …, "max"}`."""
    if not values:
        return {}
    value_N = np.array(sorted(values), dtype=np.int64)
    count_N = np.cumsum([values[int(value)] for value in value_N])
    named = {("median" if share == 50 else f"p{share}"): _percentile(value_N, count_N, share) for share in percentiles}
    return {"min": float(value_N[0]), **named, "max": float(value_N[-1])}


def mean(values: Counter[int]) -> float:
    """Return the mean of counted values; 0 of none."""
    total = sum(values.values())
    return sum(value * count for value, count in values.items()) / total if total else 0.0


def share_below(values: Counter[int], bound: int) -> float:
    """Return the share of counted values below a bound."""
    total = sum(values.values())
    return sum(count for value, count in values.items() if value < bound) / total if total else 0.0


def _percentile(value_N: NDArray[np.int64], count_N: NDArray[np.int64], share: int) -> float:
    """Return the smallest value that this share of all does not exceed. `count_N`: cumulative."""
    return float(value_N[np.searchsorted(count_N, share / 100 * count_N[-1])])
