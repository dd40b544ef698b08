"""The sizes that a worker group may have: every worker takes an equal part of a batch."""

from collections.abc import Sequence

from tinyclip.schemas.spec import WorkerRange

MAX_WORKERS = 10_000
"""Elastic groups are not larger."""


def group_sizes(workers: int | WorkerRange, batch_size: int) -> list[int]:
    """Return the numbers of workers of a spec over which a batch divides, in ascending order."""
    most = min(batch_size, MAX_WORKERS)
    counts = range(workers.min, min(workers.max, most) + 1) if isinstance(workers, WorkerRange) else [workers]
    return [count for count in counts if batch_size % count == 0]


def next_size(sizes: Sequence[int], size: int) -> int | None:
    """Return the next larger size; None if there is none."""
    return min((larger for larger in sizes if larger > size), default=None)
