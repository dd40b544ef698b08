"""Rungs of successive halving: how long trials train, and how many of them there are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rungs:
    """The division of a budget of trials. What is left after the last rung refines its result."""

    shares: tuple[float, ...]
    """Length of a training in each rung, as a share of the spec's; the last is 1."""
    trials: tuple[int, ...]
    """Trials of each rung, before the refinement."""

    @classmethod
    def of(cls, budget: int) -> "Rungs":
        if budget < 4:
            return cls((1.0,), (budget,))
        if budget < 9:
            return cls((1 / 3, 1.0), (budget // 2, 1))
        return cls((0.25, 0.5, 1.0), (round(0.55 * budget), max(2, budget // 6), max(1, budget // 12)))

    @property
    def last(self) -> int:
        return len(self.shares) - 1

    @property
    def sizes(self) -> int:
        """Trials of the first rung that search the size; the others of that rung vary the shape at that size."""
        return self.trials[0] if self.last == 0 else max(2, round(0.6 * self.trials[0]))

    def steps(self, full: int, budget: int) -> int:
        """Return the steps of a whole budget."""
        planned = sum(max(1, round(full * share)) * count for share, count in zip(self.shares, self.trials, strict=True))
        return planned + full * max(0, budget - sum(self.trials))
