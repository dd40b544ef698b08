"""Checks of a registered data set: its index can be read, its shards are unchanged, and what its report found."""

import os
from collections.abc import Sequence

from pydantic import ValidationError
from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.paths import dataset_report, dataset_shards, dataset_version
from tinyclip.schemas import DatasetReport, DatasetVersion

from tinyclip_workers.data.index.rows import ShardRow, from_parquet, shard_rows
from tinyclip_workers.data.shard_files import describe_shard
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.shards import MAX_PROBLEMS, SIZED_LOCAL_SHARDS, SIZED_REMOTE_SHARDS, spread
from tinyclip_workers.runtime.filesystems import open_own_store

POINTER = "/data/train/dataset"
SERIOUS = ("error", "warning")
"""Severities of findings that a plan shows."""


def check_dataset(version: DatasetVersion, diagnostics: Diagnostics) -> set[str]:
    """Check the data set of a job, and return the addresses of its shards. No sample is read.

    Of many shards only some are looked at. Their digests are compared when they are read.
    """
    name = f"{version.name}@{version.version}"
    root = os.environ.get(ARTIFACTS_ROOT)
    if not root:
        diagnostics.error(POINTER, name, "only the server knows its data sets; submit the spec to it")
        return set()
    folder = dataset_version(version.name, version.version)
    try:
        store = open_own_store(root)
        shards = shard_rows(from_parquet(store.read_bytes(dataset_shards(folder))))
        report = DatasetReport.model_validate_json(store.read_bytes(dataset_report(folder)))
    except (OSError, ValueError, ValidationError) as error:
        diagnostics.error(POINTER, name, f"its index or its report cannot be read ({error}); register it again")
        return set()
    _check_files(name, shards, diagnostics)
    for finding in report.findings:
        if finding.severity in SERIOUS:
            diagnostics.warn(f"data set {name}: {finding.message} {finding.remedy}")
    if version.compressed:
        diagnostics.warn(
            f"data set {name}: shards are compressed, or their server has no range requests, so a job that resumes reads them "
            "from their beginning; write them as plain tar files"
        )
    return {shard.url for shard in shards}


def _check_files(name: str, shards: Sequence[ShardRow], diagnostics: Diagnostics) -> None:
    """Add an error for each shard that is missing or has another size than when it was registered, at most MAX_PROBLEMS."""
    readable = [shard for shard in shards if shard.samples]
    limit = SIZED_REMOTE_SHARDS if readable and "://" in readable[0].url else SIZED_LOCAL_SHARDS
    remedy = "put it back, or register the data set again and use its new version"
    problems = 0
    for shard in spread(readable, limit):
        problem = _problem(shard)
        if problem is not None:
            diagnostics.error(POINTER, name, f"{shard.url} {problem}; {remedy}")
            problems += 1
        if problems == MAX_PROBLEMS:
            return


def _problem(shard: ShardRow) -> str | None:
    try:
        size = describe_shard(shard.url).bytes
    except FileNotFoundError:
        return "is not there any more"
    except (OSError, ValueError) as error:
        return f"cannot be read ({error})"
    return None if size in (0, shard.bytes) else f"has {size:,} bytes, and had {shard.bytes:,} when it was registered"
