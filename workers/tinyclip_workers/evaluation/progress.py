"""The progress of passes over samples, by the bytes of their shards."""

import time
from collections.abc import Callable, Sequence

from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import ShardProgress

PROGRESS_SECONDS = 1.0


class PassProgress:
    """Reports progress about once a second."""

    def __init__(self, urls: Sequence[str], report: Callable[[float | None, int], None]) -> None:
        """`urls`: as `tasks.shards_to_read`. `report` is called with the fraction, if known, and the number of samples."""
        self._report, self._bytes = report, ShardProgress(list(urls))
        self._samples, self._reported_at = 0, time.monotonic()

    def add(self, sample: Sample) -> None:
        self._bytes.add(sample)
        self._samples += 1
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = time.monotonic()
            self._report(self._bytes.fraction(), self._samples)
