"""The Ray tasks of a registration: each scans one shard and writes its part."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from tinyclip.artifacts.paths import dataset_version
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.data.index.scanning import ScannedShard, scan_steps, unread_shard
from tinyclip_workers.data.shard_files import ShardFile, describe_shard
from tinyclip_workers.datasets.requests import expect_wanted
from tinyclip_workers.datasets.scan.examination import ExaminationSettings, ShardExaminer
from tinyclip_workers.datasets.scan.parts import ShardSummary, has_part, write_part
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.runtime.ray_tasks import TaskLost, TaskStep, run_tasks

TRY_AGAIN_AFTER = (1.0, 10.0)
"""Seconds before a shard is read again whose store failed, or that was changed while it was read."""
PROGRESS_BYTES = 16 << 20
WANTED_SECONDS = 5.0
"""Time between two looks at the request while tasks run."""


class ShardChanges(OSError):
    """A shard that changes whenever it is read."""


@dataclass(frozen=True)
class Registration:
    """The attempt that a task belongs to."""

    artifacts: str
    name: str
    version: int
    attempt: int
    settings: ExaminationSettings
    teacher_memory: float = 0.0
    """Bytes that a task with a teacher takes; 0 if none encodes every sample."""

    @property
    def folder(self) -> str:
        return dataset_version(self.name, self.version)

    def expect_wanted(self, store: ArtifactsStore) -> None:
        """Raise RequestWithdrawn if another attempt is wanted by now, or none."""
        expect_wanted(store, self.name, self.version, self.attempt)


def scan_shards(
    registration: Registration, urls: Sequence[str], files: Sequence[ShardFile], on_progress: Callable[[int, float], None]
) -> None:
    """Scan every shard that has no part yet, on all nodes. `on_progress` takes finished shards and the share of all bytes.

    Raises RequestWithdrawn, ShardChanges and TaskLost.
    """
    store, settings = open_own_store(registration.artifacts), registration.settings.digest()
    numbers = range(len(urls))
    missing = [n for n in numbers if not has_part(store, registration.folder, n, urls[n], settings, files[n].stamp)]
    total, read = max(1, sum(file.bytes for file in files)), {n: float(files[n].bytes) for n in set(numbers) - set(missing)}
    finished, checked_at = len(read), time.monotonic()
    for step in _scan(registration, [(n, urls[n]) for n in missing]):
        if time.monotonic() - checked_at >= WANTED_SECONDS:
            checked_at = time.monotonic()
            registration.expect_wanted(store)
        if step is not None:
            number = missing[step.call]
            finished += step.finished
            read[number] = float(files[number].bytes) if step.finished else step.done
        on_progress(finished, min(1.0, sum(read.values()) / total))
    registration.expect_wanted(store)  # otherwise the tasks have written nothing


def _scan(registration: Registration, shards: Sequence[tuple[int, str]]) -> Iterator[TaskStep | None]:
    calls = [(registration, number, url) for number, url in shards]
    try:
        yield from run_tasks(scan_to_part, calls, memory=registration.teacher_memory, gpu=registration.teacher_memory > 0)
    except TaskLost as error:
        url = shards[error.call][1]
        raise TaskLost(error.call, f"reading {url} ended its process, or its node was lost ({error})") from error


def scan_to_part(registration: Registration, number: int, url: str) -> Iterator[float]:
    """Scan a shard and write its part; yield the bytes that were read. Write nothing if the request was withdrawn meanwhile.

    A store that fails is tried again. Raises ShardChanges.
    """
    stamp, scanned, examiner = yield from _scan_patiently(registration, url)
    summary = ShardSummary(
        scanned.shard, registration.settings.digest(), stamp, scanned.broken, scanned.passing, examiner.statistics
    )  # fmt: skip
    store = open_own_store(registration.artifacts)
    try:
        registration.expect_wanted(store)
    except RequestWithdrawn:
        return
    write_part(store, registration.folder, number, scanned, examiner.marks, summary)


def _scan_patiently(registration: Registration, url: str) -> Generator[float, None, tuple[str, ScannedShard, ShardExaminer]]:
    """Return the shard's stamp and what was found. Raises ShardChanges."""
    for pause in (*TRY_AGAIN_AFTER, None):
        examiner, stamp = ShardExaminer(url, registration.settings), ""
        try:
            stamp = describe_shard(url).stamp
            scanned = yield from _thinned(scan_steps(url, registration.settings.train, examiner))
            changed = describe_shard(url).stamp != stamp
        except OSError as error:
            scanned, changed = unread_shard(url, error), False
            examiner = ShardExaminer(url, registration.settings)
        if not (scanned.passing or changed):
            break
        if pause is not None:
            time.sleep(pause)
        elif changed:
            raise ShardChanges(f"{url} was changed while it was read; register the data set when its shards are complete")
    return stamp, scanned, examiner


def _thinned(steps: Generator[int, None, ScannedShard]) -> Generator[float, None, ScannedShard]:
    """Yield the bytes that were read at the start and each time that PROGRESS_BYTES were added."""
    reported = -PROGRESS_BYTES
    while True:
        try:
            read = next(steps)
        except StopIteration as end:
            scanned: ScannedShard = end.value
            return scanned
        if read - reported >= PROGRESS_BYTES:
            reported = read
            yield float(read)
