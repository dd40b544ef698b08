"""The registration of one version: scan the shards, commit their index and report, and the version's document last."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
from tinyclip.artifacts.documents import DatasetRequest
from tinyclip.artifacts.paths import dataset_document, dataset_report, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import DatasetReport, DatasetVersion, Finding
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.index.dataset_index import digest_of, write_index
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.shard_files import ShardFile, describe_shard
from tinyclip_workers.datasets.examination import ExaminationSettings
from tinyclip_workers.datasets.merging import Merged, Parts, merge_parts, remove_findings
from tinyclip_workers.datasets.report.building import build_report
from tinyclip_workers.datasets.shard_tasks import Registration, scan_shards
from tinyclip_workers.datasets.task_images import TaskScan, TaskShard, find_task_shards, read_task_images, scan_task_images
from tinyclip_workers.runtime.events import EventWriter

DESCRIBING_THREADS = 32
SHOWN_MISSING = 5
LANGUAGE_CAPTIONS = 20_000
"""Captions of all shards whose language is determined."""
SCANNING_SHARE = 0.9
"""Share of the progress that the scan has; the rest is for what follows it."""


def register_version(store: ArtifactsStore, request: DatasetRequest, events: EventWriter) -> JSON:
    """Register the version that a request names. Return its document, or `{"unchanged": True}`.

    Parts of earlier attempts are used. Raises DataError, RequestWithdrawn, OSError, TaskLost.
    """
    path = dataset_document(request.name, request.version)
    if (finished := store.read_if_exists(path)) is not None:  # by an attempt that ended before it reported that
        remove_findings(store, dataset_version(request.name, request.version))
        document: JSON = json.loads(finished)
        return document
    urls = _shards(request)
    files = _describe(urls)
    task_shards = find_task_shards(request.request.tasks)
    registration = Registration(store.root, request.name, request.version, request.attempt, _settings(request, len(urls)))
    progress = _Progress(events, len(urls))
    scan_shards(registration, urls, files, progress.report)
    parts = Parts(store, registration.folder, urls)
    merged = merge_parts(parts)
    _expect_pairs(merged, request)
    digest = digest_of(merged.shards, _identity(request))
    if digest == request.previous:
        registration.expect_wanted(store)
        store.remove(registration.folder)
        return {"unchanged": True}
    registration.expect_wanted(store)
    write_index(store, registration.folder, merged.shards)
    report = build_report(parts, request.request, merged, _task_images(store, request, task_shards))
    registration.expect_wanted(store)
    store.write_bytes(dataset_report(registration.folder), report.model_dump_json(indent=1).encode())
    version = _document(request, merged, report, digest)
    registration.expect_wanted(store)
    store.write_bytes(path, version.model_dump_json(indent=1).encode())
    remove_findings(store, registration.folder)
    return version.model_dump(mode="json")


def _shards(request: DatasetRequest) -> list[str]:
    """Raises DataError, OSError, ValueError."""
    patterns = request.request.source.shards
    urls = expand_shards(patterns, "source.shards")
    if not urls:
        raise DataError(f"no shard matches {patterns}; check the path", field="source.shards", value=patterns)
    return urls


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


def _settings(request: DatasetRequest, shards: int) -> ExaminationSettings:
    source = request.request.source
    train = TrainData(
        shards=source.shards, image_key=source.image_key, caption_key=source.caption_key, distinct_key=source.distinct_key,
        holdout=request.request.holdout,
    )  # fmt: skip
    return ExaminationSettings(train, source.where, language_captions=-(-LANGUAGE_CAPTIONS // shards))


def _identity(request: DatasetRequest) -> JSON:
    """Return the settings that decide which samples are used, and what of them."""
    source = request.request.source.model_dump(mode="json", exclude={"shards"})
    return {"source": source, "holdout": request.request.holdout}


def _task_images(store: ArtifactsStore, request: DatasetRequest, shards: Sequence[TaskShard]) -> pa.Table:
    """Return the images of all evaluation tasks. Raises OSError, TaskLost."""
    put = request.request
    scan = TaskScan(store.root, request.name, request.version, request.attempt, tuple(put.tasks), put.holdout)
    scan_task_images(scan, shards)
    return read_task_images(store, scan, shards)


def _expect_pairs(merged: Merged, request: DatasetRequest) -> None:
    """Raise DataError if no sample can be used, with the reason."""
    statistics, source = merged.statistics, request.request.source
    broken = [shard for shard in merged.broken if shard.samples == 0]
    if len(broken) == len(merged.shards):
        message = f"none of the {len(broken):,} shards can be read; the first is {broken[0].url}: {broken[0].reason}"
        raise DataError(f"{message}; check the paths and the files", field="source.shards", value=broken[0].url)
    if statistics.usable:
        return
    if statistics.kept == 0:
        message = f"where excludes all of the {statistics.samples:,} samples; check its fields and values"
        raise DataError(message, field="source.where", value=str(source.where)[:200])
    code, count = statistics.counts.most_common(1)[0]
    first = statistics.examples[code][0]
    message = f"none of the {statistics.kept:,} samples is usable; of {count:,}, the first is {first['key']}: {first['detail']}"
    key = "image_key" if code.endswith("images") else "caption_key"
    raise DataError(f"{message}; check source.{key}", field=f"source.{key}", value=getattr(source, key))


def _document(request: DatasetRequest, merged: Merged, report: DatasetReport, digest: str) -> DatasetVersion:
    return DatasetVersion(
        name=request.name, version=request.version, samples=sum(shard.samples for shard in merged.shards),
        pairs=sum(shard.pairs for shard in merged.shards), shards=len(merged.shards),
        bytes=sum(shard.bytes for shard in merged.shards), digest=digest, source=request.request.source,
        holdout=request.request.holdout, compressed=any(shard.sequential for shard in merged.shards),
        caption_stats=report.caption_stats, image_sizes=report.image_sizes,
        findings=_counts(report.findings), created_at=datetime.now(UTC),
    )  # fmt: skip


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + finding.count
    return counts


class _Progress:
    """Reports progress about once a second."""

    def __init__(self, events: EventWriter, shards: int) -> None:
        self._events, self._shards, self._reported_at, self._reported = events, shards, 0.0, (-1, 0.0)

    def report(self, finished: int, share: float) -> None:
        """Send an event if there is progress: without any, the control plane ends the attempt after some time."""
        if (finished, share) != self._reported and time.monotonic() - self._reported_at >= 1:
            self._reported_at, self._reported = time.monotonic(), (finished, share)
            data = {"fraction": round(SCANNING_SHARE * share, 4)}
            self._events.send("dataset.progress", message=f"{finished:,} of {self._shards:,} shards", data=data)
