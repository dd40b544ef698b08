"""The margin of quality as a function of size: monotone, whatever the noise of single trainings."""

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""A size, and the margin there: 1 is just enough."""
DEFAULT_SLOPE = 0.1
"""Margin for each factor e of the size, before two sizes are known."""


def monotone(points: Sequence[Point]) -> list[Point]:
    """Return the nearest points whose margin does not fall with the size (pool adjacent violators), by size."""
    pools: list[tuple[float, list[float]]] = []
    for size, margin in sorted(points):
        pools.append((margin, [size]))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (margin, sizes), (before, smaller) = pools.pop(), pools.pop()
            both = smaller + sizes
            pools.append(((before * len(smaller) + margin * len(sizes)) / len(both), both))
    return [(size, margin) for margin, sizes in pools for size in sizes]


def bracket(points: Sequence[Point]) -> tuple[Point | None, Point | None]:
    """Return the largest size that is not enough, and the smallest that is, of monotone points."""
    fitted = monotone(points)
    low = max((point for point in fitted if point[1] < 1), default=None)
    high = min((point for point in fitted if point[1] >= 1), default=None)
    return low, high


def between(low: Point, high: Point, margin: float = 0.2) -> float:
    """Return the size between two, on a logarithmic scale, at which the margin should be 1; not too near to either."""
    rise = high[1] - low[1]
    share = (1 - low[1]) / rise if rise > 0 else 0.5
    share = min(1 - margin, max(margin, share))
    return float(low[0] * (high[0] / low[0]) ** share)


def slope(points: Sequence[Point]) -> float:
    """Return the margin for each factor e of the size, by least squares; never less than a fifth of the default."""
    if len({size for size, _ in points}) < 2:
        return DEFAULT_SLOPE
    sizes, margins = [math.log(size) for size, _ in points], [margin for _, margin in points]
    mean, middle = sum(sizes) / len(sizes), sum(margins) / len(margins)
    covariance = sum((size - mean) * (margin - middle) for size, margin in zip(sizes, margins, strict=True))
    return max(DEFAULT_SLOPE / 5, covariance / sum((size - mean) ** 2 for size in sizes))
