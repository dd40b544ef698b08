"""The inputs of a registration, checked before hours of work: shards, evaluation tasks, the teacher."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyclip.schemas.datasets import DatasetPut
from tinyclip.schemas.spec import TeacherSpec, TrainData

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.shard_files import ShardFile, describe_shard
from tinyclip_workers.datasets.captions.checks import DEFAULT_CONTEXT
from tinyclip_workers.datasets.images.task_images import TaskShard, find_task_shards
from tinyclip_workers.datasets.scan.examination import ExaminationSettings
from tinyclip_workers.datasets.scan.filters import SampleFilter

if TYPE_CHECKING:
    from tinyclip_workers.datasets.teacher import FoundTeacher

DESCRIBING_THREADS = 32
SHOWN_MISSING = 5
LANGUAGE_CAPTIONS = 20_000
"""Captions of all shards whose language is determined."""


@dataclass(frozen=True)
class Inputs:
    """Everything that a registration reads."""

    put: DatasetPut
    urls: Sequence[str]
    files: Sequence[ShardFile]
    task_shards: Sequence[TaskShard]
    teacher: "FoundTeacher | None"

    @property
    def context_length(self) -> int:
        return self.teacher.source.layout.context_length if self.teacher is not None else DEFAULT_CONTEXT

    @property
    def teacher_size(self) -> int | None:
        """The side of the teacher's input."""
        return self.teacher.source.layout.image_size if self.teacher is not None else None

    @property
    def measuring(self) -> "FoundTeacher | None":
        """The teacher, if it has to encode every sample because `where` bounds its agreement."""
        return self.teacher if SampleFilter(self.put.source.where).needs_agreement else None

    def settings(self) -> ExaminationSettings:
        """Return what the examination of a shard depends on."""
        source = self.put.source
        train = TrainData(
            shards=source.shards, image_key=source.image_key, caption_key=source.caption_key, distinct_key=source.distinct_key,
            languages=source.languages, holdout=self.put.holdout,
        )  # fmt: skip
        measuring, languages = self.measuring, -(-LANGUAGE_CAPTIONS // len(self.urls))
        return ExaminationSettings(
            train, source.where, self.context_length, languages, measuring.spec if measuring is not None else None,
            measuring.digest if measuring is not None else "",
        )  # fmt: skip


def find_inputs(put: DatasetPut) -> Inputs:
    """Find everything that a request names. Raises DataError, TeacherError, OSError, ValueError."""
    patterns = put.source.shards
    urls = expand_shards(patterns, "source.shards")
    if not urls:
        raise DataError(f"no shard matches {patterns}; check the path", field="source.shards", value=patterns)
    files, task_shards = _describe(urls), find_task_shards(put.tasks)
    return Inputs(put, urls, files, task_shards, _find_teacher(put.teacher) if put.teacher is not None else None)


def _find_teacher(spec: TeacherSpec) -> "FoundTeacher":
    """Raises TeacherError."""
    from tinyclip_workers.datasets import teacher  # takes seconds, and most registrations have none

    return teacher.find(spec)


def _describe(urls: Sequence[str]) -> list[ShardFile]:
    """Describe all shards. Raises DataError naming those that do not exist, OSError and ValueError."""

    def describe(url: str) -> ShardFile | None:
        try:
            return describe_shard(url)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(DESCRIBING_THREADS) as threads:
        files = list(threads.map(describe, urls))
    missing = [url for url, file in zip(urls, files, strict=True) if file is None]
    if missing:
        names = ", ".join(missing[:SHOWN_MISSING]) + (", …" if len(missing) > SHOWN_MISSING else "")
        message = f"{len(missing):,} of {len(urls):,} shards do not exist: {names}; check the pattern, or upload them"
        raise DataError(message, field="source.shards", value=missing[0])
    return [file for file in files if file is not None]
