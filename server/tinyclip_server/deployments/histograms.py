"""Histograms of Prometheus, summed over replicas."""

import math
from collections import Counter
from dataclasses import dataclass, field

from tinyclip.schemas import Bucket


@dataclass
class Histogram:
    """Cumulative counts by upper bound, as Prometheus exposes them."""

    cumulative: Counter[float] = field(default_factory=Counter)
    sum: float = 0.0
    count: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    @property
    def integer_mean(self) -> float | None:
        """Return the mean of whole numbers above 0, estimated from the buckets: 1 in the first one, which ends at 1.

        Ray exposes a sum for which it takes the middle of each bucket, 0.5 in the first one.
        """
        total, below, lower = 0.0, 0.0, 0.0
        for bound in sorted(self.cumulative):
            upper = lower + 1 if math.isinf(bound) else bound
            total += (self.cumulative[bound] - below) * (lower + 1 + upper) / 2
            below, lower = self.cumulative[bound], bound
        return total / below if below else None

    def quantile(self, q: float) -> float | None:
        """Return a quantile, interpolated linearly in its bucket. Above the highest bound it is that bound."""
        bounds = sorted(self.cumulative)
        if not bounds or not self.count:
            return None
        rank, lower, below = q * self.cumulative[bounds[-1]], 0.0, 0.0
        for bound in bounds:
            within = self.cumulative[bound] - below
            if self.cumulative[bound] >= rank and within > 0:
                return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / within
            lower, below = lower if math.isinf(bound) else bound, self.cumulative[bound]
        return lower

    def buckets(self) -> list[Bucket]:
        """Return the counts of each bucket alone, without empty ones at the end."""
        found, below = list[Bucket](), 0.0
        for bound in sorted(self.cumulative):
            found.append(Bucket(up_to=None if math.isinf(bound) else bound, count=round(self.cumulative[bound] - below)))
            below = self.cumulative[bound]
        while found and not found[-1].count:
            found.pop()
        return found

    def add(self, other: "Histogram") -> None:
        self.cumulative.update(other.cumulative)
        self.sum += other.sum
        self.count += other.count
