"""Registered data sets and reinforcements in an artifacts store, without the jobs of the server."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from tinyclip.artifacts.documents import ReinforcementRequest
from tinyclip.artifacts.paths import (
    dataset_document,
    dataset_report,
    dataset_version,
    reinforcement_document,
    reinforcement_events,
    reinforcement_folder,
    reinforcement_request,
)
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetSource, DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TrainData
from tinyclip_workers.data.index.dataset_index import digest_of, write_index, write_shard_samples
from tinyclip_workers.data.index.rows import SampleRow, samples_table
from tinyclip_workers.data.index.scanning import scan_shard
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.reinforcing.encoder import ShardEncoder
from tinyclip_workers.reinforcing.inputs import IMPORTED, description, load_encoder, precision_for, reinforced_version
from tinyclip_workers.reinforcing.job import document_of
from tinyclip_workers.reinforcing.merging import finish_group, groups_of, merge_part
from tinyclip_workers.reinforcing.progress import read_group
from tinyclip_workers.reinforcing.published import PublishedShards

DATASET, ID = "shapes", "reinf_0123456789abcdef"


def register(
    store: ArtifactsStore, shards: str, *, number: int = 1, more_captions: dict[str, list[str]] | None = None,
    holdout: float = 0.0, findings: Sequence[dict[str, Any]] = (), **keys: Any,
) -> DatasetVersion:
    """Index shards as a version of DATASET, with a report that has these findings."""
    source = DatasetSource(shards=shards, **{"image_key": ["png", "jpg"], **keys})
    train = TrainData(shards=shards, holdout=holdout, image_key=source.image_key, caption_key=source.caption_key)
    folder = dataset_version(DATASET, number)
    scanned = [scan_shard(url, train) for url in expand_shards(shards)]
    for shard, each in enumerate(scanned):
        found = [SampleRow(**{**row, "key": row["key"].decode()}) for row in each.samples.to_pylist()]
        for row in found if more_captions else ():
            row.more_captions = more_captions.get(row.key)
        write_shard_samples(store, folder, shard, samples_table(found))
    rows = [each.shard for each in scanned]
    write_index(store, folder, rows)
    version = DatasetVersion(
        name=DATASET, version=number, samples=sum(row.samples for row in rows), pairs=sum(row.pairs for row in rows),
        shards=len(rows), bytes=sum(row.bytes for row in rows), digest=digest_of(rows), source=source, holdout=holdout,
        compressed=any(row.sequential for row in rows), created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    report = {"samples": version.samples, "usable": version.samples, "findings": list(findings)}
    store.write_bytes(dataset_report(folder), json.dumps(report).encode())
    store.write_bytes(dataset_document(DATASET, number), version.model_dump_json().encode())
    return version


def request_reinforcement(store: ArtifactsStore, attempt: int = 1, **post: Any) -> str:
    """Write a request; returns the reinforcement's folder."""
    request = ReinforcementRequest(
        id=ID, dataset=DATASET, version=1, attempt=attempt, request=ReinforcementPost.model_validate(post)
    )
    folder = reinforcement_folder(DATASET, 1, ID)
    store.write_bytes(reinforcement_request(folder), request.model_dump_json().encode())
    return folder


def reinforce_here(store: ArtifactsStore, folder: str) -> None:
    """Make the requested reinforcement in this process, without Ray."""
    request = ReinforcementRequest.model_validate_json(store.read_bytes(reinforcement_request(folder)))
    device = torch.device("cpu")
    version, precision = reinforced_version(store, folder, request), precision_for(request.request, device)
    teachers = load_encoder(request.request, device, precision)
    shards = [number for number, shard in enumerate(version.index.shards) if shard.pairs]
    computed = request.request.embeddings == "compute"
    writer = ShardEncoder(version, teachers) if computed else PublishedShards(version, teachers)
    counts = [writer.write(shard) for shard in shards]
    merge_part(store, folder, shards, 0, 1)
    widths = [teacher.embed_dim for teacher in teachers.described]
    for number, group in enumerate(groups_of(shards)):
        finish_group(store, folder, number, group, 1, widths, request.request.dtype)
    groups = [read_group(store, folder, number) for number in range(len(groups_of(shards)))]
    texts, size = (sum(each[name] for each in groups) for name in ("texts", "bytes"))
    described = description(teachers, precision.name if computed else IMPORTED)
    document = document_of(request, version.version, described, counts, texts, size)
    store.write_bytes(reinforcement_document(folder), document.model_dump_json().encode())


def reinforcement_arguments(root: object, attempt: int = 1) -> list[str]:
    """Return the arguments of `tinyclip_workers.jobs`."""
    return [
        "reinforcement", "--artifacts", str(root), "--dataset", DATASET, "--version", "1", "--reinforcement", ID,
        "--attempt", str(attempt),
    ]  # fmt: skip


def events_of(store: ArtifactsStore, folder: str, attempt: int = 1) -> list[dict[str, Any]]:
    events = reinforcement_events(folder, attempt)
    segments = [store.read_bytes(f"{events}/{name}").decode() for name in store.list(events)]
    return [json.loads(line) for segment in segments for line in segment.splitlines()]
