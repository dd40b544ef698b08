"""The lineage of a model version: what it was made from, and with which software."""

import platform
from collections.abc import Sequence
from importlib.metadata import version as installed
from typing import Any

from tinyclip.artifacts.paths import dataset_shards, dataset_version
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON, DatasetVersion, JobSpec, ModelVersion

from tinyclip_workers.data.index.rows import from_parquet, shard_rows
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.sources import find_teacher, of_parent
from tinyclip_workers.model.files.weights import file_digest
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.filesystems import open_filesystem

MAX_BYTES_TO_HASH = 4 << 30
"""Training data up to this size is hashed; larger data is identified by size and the store's ETag."""
MAX_LISTED_SHARDS = 1000
"""Of a data set with more shards, only the version and its digest are recorded."""


def student_lineage(run: JobAttempt, sources: Sequence[ModelSource]) -> JSON:
    """Return the lineage of a job's student.

    `teacher` is the first of several; `teachers`, only if there are several, has all with their shares. `dataset`, only with one,
    is its version. `inherited`, only with `inherit_from`, is the model that the first stage has inherited from.
    """
    spec, dataset = run.document.spec, run.document.dataset
    parent = of_parent(spec, find_teacher)
    teachers = [{"name": source.name, "sha256": file_digest(source.weights())} for source in sources]
    shares = [at.share for at in spec.every_teacher()]
    several = [{**teacher, "share": share} for teacher, share in zip(teachers, shares, strict=True)]
    return {
        "spec": spec.model_dump(mode="json"),
        "teacher": teachers[0] if teachers else None,
        **({"teachers": several} if len(several) > 1 else {}),
        **({"inherited": {"name": parent.name, "sha256": file_digest(parent.weights())}} if parent is not None else {}),
        **({"clusters": clusters} if (clusters := _clusters(spec)) else {}),
        **({"dataset": dataset.model_dump(mode="json")} if dataset is not None else {}),
        "data": data_digests(spec.data.train.patterns) if dataset is None else _registered_digests(run.store, dataset),
        "code": code_versions(),
    }


def training_spec(version: ModelVersion) -> JobSpec | None:
    """Return the spec of the job that made a version, with the shards of its data set; None for an imported version.

    Raises ValidationError if it is one of an older TinyCLIP.
    """
    if "spec" not in version.lineage:
        return None
    spec, dataset = JobSpec.model_validate(version.lineage["spec"]), training_dataset(version)
    return dataset.resolve(spec) if dataset is not None else spec


def training_dataset(version: ModelVersion) -> DatasetVersion | None:
    """Return the version of the data set that a version was trained on; None if its job named shards. Raises ValidationError."""
    dataset = version.lineage.get("dataset")
    return DatasetVersion.model_validate(dataset) if dataset is not None else None


def code_versions() -> JSON:
    """Return the versions of the software that writes a version, for its lineage."""
    packages = {name: installed(name) for name in ("tinyclip", "torch", "open_clip_torch")}
    return {**packages, "python": platform.python_version()}


def data_digests(shards: str | Sequence[str]) -> list[JSON]:
    """Identify each shard by `url`, `bytes`, and `sha256` if all together have at most 4 GiB, else the store's `etag`.

    A shard that cannot be read has only its url.
    """
    digests = [_shard_info(url) for url in expand_shards(shards)]
    is_small = sum(entry.get("bytes") or 0 for entry in digests) <= MAX_BYTES_TO_HASH
    for entry in digests:
        if is_small and entry.get("bytes"):
            entry["sha256"] = file_digest(entry["url"])
            entry.pop("etag", None)
    return digests


def _registered_digests(store: ArtifactsStore, dataset: DatasetVersion) -> list[JSON]:
    """Return the digests with which the shards of a data set were registered."""
    if dataset.shards > MAX_LISTED_SHARDS:
        return []
    shards = shard_rows(from_parquet(store.read_bytes(dataset_shards(dataset_version(dataset.name, dataset.version)))))
    return [{"url": shard.url, "bytes": shard.bytes, "sha256": shard.sha256} for shard in shards]


def _shard_info(url: str) -> dict[str, Any]:
    try:
        fs, path = open_filesystem(url)
        info = fs.info(path)
    except (OSError, ValueError):
        return {"url": url}
    etag = info.get("ETag") or info.get("etag")
    return {"url": url, "bytes": info.get("size"), **({"etag": str(etag)} if etag else {})}


def _clusters(spec: JobSpec) -> list[JSON]:
    """Return the files of clusters that stages learned from."""
    objectives = [stage.objective or spec.objective for stage in spec.stages]
    files = {o.clusters for o in objectives if o.clusters is not None and o.cluster_instance > 0}
    return [{"url": file, "sha256": file_digest(file)} for file in sorted(files)]
