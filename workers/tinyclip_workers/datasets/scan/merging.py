"""The parts of all shards together: the rows of the shards, and the sum of the statistics."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tinyclip.artifacts.paths import dataset_findings, dataset_findings_folder
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.index.rows import ShardRow
from tinyclip_workers.datasets.scan.parts import Marks, ShardSummary, read_part
from tinyclip_workers.datasets.statistics import Statistics, merged

READ_TOGETHER = 16
"""Parts that are read at once, and held in memory."""


@dataclass(frozen=True)
class BrokenShard:
    """A shard that could not be read to its end."""

    url: str
    samples: int
    """Those before the break, which are kept."""
    reason: str


@dataclass
class Merged:
    """All parts of a version."""

    shards: list[ShardRow] = field(default_factory=list)
    broken: list[BrokenShard] = field(default_factory=list)
    statistics: Statistics = field(default_factory=merged)
    usable: list[int] = field(default_factory=list)
    """The usable samples of each shard."""


class Parts:
    """All parts of a version, in the order of its shards; they are read again each time."""

    def __init__(self, store: ArtifactsStore, folder: str, urls: Sequence[str], on_step: Callable[[str], None]) -> None:
        """`on_step` is called with a description now and then, and may raise."""
        self.store, self.folder, self.urls, self._on_step, self._read_parts = store, folder, urls, on_step, 0

    def __iter__(self) -> Iterator[tuple[Marks, ShardSummary]]:
        """Raises FileNotFoundError, or another OSError."""
        with ThreadPoolExecutor(READ_TOGETHER) as threads:
            for first in range(0, len(self.urls), READ_TOGETHER):
                numbers = range(first, min(len(self.urls), first + READ_TOGETHER))
                for number, part in zip(numbers, threads.map(self._read, numbers), strict=True):
                    if part is None:
                        path = self.store.uri(dataset_findings(self.folder, number))
                        raise FileNotFoundError(f"{path} is missing; register the data set again")
                    self._read_parts += 1
                    self._on_step(f"comparing samples: {self._read_parts:,} parts")
                    yield part

    def _read(self, number: int) -> tuple[Marks, ShardSummary] | None:
        return read_part(self.store, self.folder, number)


def merge_parts(parts: Parts) -> Merged:
    """Add up the parts. Raises OSError."""
    total = Merged()
    for _, summary in parts:
        total.shards.append(summary.shard)
        total.statistics.add(summary.statistics)
        total.usable.append(summary.statistics.usable)
        if summary.broken is not None:
            total.broken.append(BrokenShard(summary.shard.url, summary.shard.samples, summary.broken))
    return total


def remove_findings(store: ArtifactsStore, folder: str) -> None:
    """Remove the parts of the report, which a complete version does not need."""
    store.remove(dataset_findings_folder(folder))
