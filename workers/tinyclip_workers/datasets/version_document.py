"""The document of a version, and the digests by which a repeated registration recognises it."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
from tinyclip.artifacts.documents import DatasetRequest
from tinyclip.artifacts.paths import dataset_document, dataset_folder
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetReport, DatasetVersion, Finding

from tinyclip_workers.data.index.dataset_index import digest_of
from tinyclip_workers.data.index.rows import to_parquet
from tinyclip_workers.datasets.captions.joined_file import CountedCaptions
from tinyclip_workers.datasets.inputs import Inputs
from tinyclip_workers.datasets.scan.merging import Merged


def data_digest(merged: Merged, inputs: Inputs, joined: CountedCaptions | None) -> str:
    """Return the digest of the data: of the shards, and of everything that decides which samples are used, and what of them."""
    settings = inputs.put.source.model_dump(mode="json", exclude={"shards", "captions"})
    settings["holdout"] = inputs.put.holdout
    settings["captions"] = joined.sha256 if joined is not None else None
    settings["teacher"] = inputs.measuring.digest if inputs.measuring is not None else None
    return digest_of(merged.shards, settings)


def report_digest(data: str, inputs: Inputs, task_images: pa.Table) -> str:
    """Return the digest of everything that the report is made from."""
    tasks = [(task.name, task.subset, task.where) for task in inputs.put.tasks]
    images = hashlib.sha256(to_parquet(task_images)).hexdigest() if tasks else None
    teacher = inputs.teacher.digest if inputs.teacher is not None else None
    document = json.dumps([data, inputs.put.image_size, tasks, images, teacher], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def is_unchanged(store: ArtifactsStore, request: DatasetRequest, digest: str, report: str) -> bool:
    """Return whether the newest version has this data and a report made in the same way. Raises OSError."""
    if digest != request.previous:
        return False
    numbers = [int(name) for name in store.list(dataset_folder(request.name)) if name.isdecimal() and int(name) < request.version]
    for number in sorted(numbers, reverse=True):
        if (data := store.read_if_exists(dataset_document(request.name, number))) is not None:
            version = DatasetVersion.model_validate_json(data)
            if version.digest == digest:
                return version.report_digest == report
    return False


def version_document(
    request: DatasetRequest, merged: Merged, report: DatasetReport, digest: str, report_digest: str
) -> DatasetVersion:
    shards = merged.shards
    return DatasetVersion(
        name=request.name, version=request.version, samples=sum(shard.samples for shard in shards),
        pairs=sum(shard.pairs for shard in shards), shards=len(shards), bytes=sum(shard.bytes for shard in shards), digest=digest,
        report_digest=report_digest, source=request.request.source, holdout=request.request.holdout,
        compressed=any(shard.sequential for shard in shards), caption_stats=report.caption_stats, image_sizes=report.image_sizes,
        findings=_counts(report.findings), created_at=datetime.now(UTC),
    )  # fmt: skip


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + finding.count
    return counts
