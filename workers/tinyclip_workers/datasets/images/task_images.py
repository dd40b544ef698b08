"""The images of evaluation tasks, which the report looks for among the training images: hashed by Ray tasks, one a shard."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from tinyclip.artifacts.paths import dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import EvaluationTask

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.rows import from_parquet, to_parquet
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, image_bytes, printable
from tinyclip_workers.data.shard_files import describe_shard
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.datasets.images.checks import THUMBNAIL_BYTES, ImageMarks, examine_image
from tinyclip_workers.datasets.requests import expect_wanted
from tinyclip_workers.evaluation.clip_benchmark import resolve_task
from tinyclip_workers.evaluation.labels import is_selected, task_error
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.ray_job import RequestWithdrawn
from tinyclip_workers.runtime.ray_tasks import run_tasks

FORMAT = 1
PROGRESS_SAMPLES = 500
MAX_IMAGES = 500_000
"""Images of all tasks that are compared at most; of more, the first ones of each shard."""
TASK_IMAGES = pa.schema([
    ("key", pa.string()), ("image", pa.uint64()), ("thumbnail", pa.binary(THUMBNAIL_BYTES)), ("tasks", pa.list_(pa.int32())),
])  # fmt: skip
"""An image, and the numbers of the tasks that read it."""
SETTINGS = b"settings"
"""The key in a file's metadata of what it was made from."""


@dataclass(frozen=True)
class TaskShard:
    """One shard of tasks that have it and their `image_key` in common."""

    url: str
    image_key: tuple[str, ...]
    tasks: tuple[int, ...]
    most: int
    """Images that are hashed at most."""


@dataclass(frozen=True)
class TaskScan:
    """The attempt that a Ray task belongs to, and the tasks whose images are hashed."""

    artifacts: str
    name: str
    version: int
    attempt: int
    tasks: tuple[EvaluationTask, ...]
    holdout: float

    @property
    def folder(self) -> str:
        return f"{dataset_version(self.name, self.version)}/findings/tasks"


def find_task_shards(tasks: Sequence[EvaluationTask]) -> list[TaskShard]:
    """Return the shards of tasks, each once. Raises DataError naming a task that cannot be used."""
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for number, task in enumerate(tasks):
        for url in _shards(task):
            found.setdefault((url, tuple(task.image_key)), []).append(number)
    most = -(-MAX_IMAGES // max(1, len(found)))
    return [TaskShard(url, image_key, tuple(numbers), most) for (url, image_key), numbers in found.items()]


def _shards(task: EvaluationTask) -> list[str]:
    """Raises DataError."""
    try:
        shards = resolve_task(task).shards
        urls = expand_shards(shards, f"evaluation.tasks.{task.name}.shards")
        missing = next((url for url in urls if not _exists(url)), None)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise task_error(task, "shards", f"task {task.name}: {error}", task.shards) from error
    if missing is not None or not urls:
        problem = f"there is no {missing}" if missing else f"no shard matches {task.shards}"
        raise task_error(task, "shards", f"task {task.name}: {problem}; check the path", task.shards)
    return urls


def _exists(url: str) -> bool:
    try:
        describe_shard(url)
    except FileNotFoundError:
        return False
    return True


def scan_task_images(scan: TaskScan, shards: Sequence[TaskShard], on_step: Callable[[str], None]) -> None:
    """Hash the images of all shards on all nodes, but for those that are hashed already.

    `on_step` is called with a description while tasks run. Raises what it raises, OSError and TaskLost.
    """
    store = open_own_store(scan.artifacts)
    missing = [n for n, shard in enumerate(shards) if _read(store, scan, n, _settings(scan, shard)) is None]
    seen: dict[int, float] = {}
    for step in run_tasks(hash_task_images, [(scan, number, shards[number]) for number in missing]):
        if step is not None:
            seen[step.call] = max(step.done, seen.get(step.call, 0.0))
        on_step(f"{sum(seen.values()):,.0f} images of evaluation tasks")
    on_step("images of evaluation tasks are compared")


def hash_task_images(scan: TaskScan, number: int, shard: TaskShard) -> Iterator[float]:
    """Hash the images of one shard, and write them unless the request was withdrawn. Unreadable samples are skipped."""
    rows: list[tuple[str, ImageMarks, list[int]]] = []
    settings, skipped = _settings(scan, shard), Skipped()
    try:
        for count, sample in enumerate(read_shards([shard.url], skipped)):
            if count % PROGRESS_SAMPLES == 0:
                yield float(count)
            if len(rows) >= shard.most:
                break
            with skipped.unusable(sample):
                tasks = [task for task in shard.tasks if _is_selected(sample, scan, task)]
                if tasks and (marks := examine_image(image_bytes(sample, shard.image_key))).tone is None:
                    rows.append((printable(sample["__key__"]), marks, tasks))
    except DataError:
        rows = []  # an unreadable shard, which evaluations report
    columns: dict[str, Any] = {
        "key": [key for key, _, _ in rows], "image": [marks.hash for _, marks, _ in rows],
        "thumbnail": [marks.thumbnail for _, marks, _ in rows], "tasks": [tasks for _, _, tasks in rows],
    }  # fmt: skip
    table = pa.table(columns, schema=TASK_IMAGES).replace_schema_metadata({SETTINGS: settings})
    store = open_own_store(scan.artifacts)
    try:
        expect_wanted(store, scan.name, scan.version, scan.attempt)
    except RequestWithdrawn:
        return
    store.write_bytes(_path(scan, number), to_parquet(table))


def read_task_images(store: ArtifactsStore, scan: TaskScan, shards: Sequence[TaskShard]) -> pa.Table:
    """Return the images of all shards. Raises FileNotFoundError."""
    return pa.concat_tables([TASK_IMAGES.empty_table(), *(_table(store, scan, number) for number in range(len(shards)))])


def _is_selected(sample: Sample, scan: TaskScan, task: int) -> bool:
    return is_selected(sample, scan.tasks[task], scan.holdout)


def _settings(scan: TaskScan, shard: TaskShard) -> bytes:
    """Return a digest of everything that the images of a shard depend on."""
    tasks = [scan.tasks[task].model_dump(mode="json", include={"subset", "where"}) for task in shard.tasks]
    document = [FORMAT, shard.url, shard.image_key, shard.tasks, shard.most, tasks, scan.holdout, describe_shard(shard.url).stamp]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest().encode()


def _read(store: ArtifactsStore, scan: TaskScan, number: int, settings: bytes) -> pa.Table | None:
    data = store.read_if_exists(_path(scan, number))
    table = None if data is None else from_parquet(data)
    return table if table is not None and (table.schema.metadata or {}).get(SETTINGS) == settings else None


def _table(store: ArtifactsStore, scan: TaskScan, number: int) -> pa.Table:
    return from_parquet(store.read_bytes(_path(scan, number))).replace_schema_metadata(None)


def _path(scan: TaskScan, number: int) -> str:
    return f"{scan.folder}/{number:06d}.parquet"
