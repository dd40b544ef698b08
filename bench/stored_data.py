"""Registered data sets and reinforcements for benches, in an artifacts store of their own."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from safetensors.torch import save
from tinyclip.artifacts.documents import ReinforcementRequest
from tinyclip.artifacts.paths import dataset_document, dataset_version, reinforcement_folder, reinforcement_request
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Layout
from tinyclip.schemas.datasets import DatasetSource, DatasetVersion, ReinforcementPost
from tinyclip.schemas.spec import TrainData
from tinyclip_workers import jobs
from tinyclip_workers.data.index.dataset_index import DatasetIndex, digest_of, open_index, write_index, write_shard_samples
from tinyclip_workers.data.index.scanning import scan_shard
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.model.architecture import build_model, open_clip_config

NAME = "bench"


def register(store: ArtifactsStore, train: TrainData) -> tuple[DatasetVersion, DatasetIndex]:
    """Index shards as version 1 of a data set, with the keys and the holdout of a spec."""
    source = DatasetSource(shards=train.patterns, image_key=train.image_key, caption_key=train.caption_key)
    folder, scanned = dataset_version(NAME, 1), [scan_shard(url, train) for url in expand_shards(train.patterns)]
    for number, each in enumerate(scanned):
        write_shard_samples(store, folder, number, each.samples)
    shards = [each.shard for each in scanned]
    write_index(store, folder, shards)
    version = DatasetVersion(
        name=NAME, version=1, samples=sum(shard.samples for shard in shards), pairs=sum(shard.pairs for shard in shards),
        shards=len(shards), bytes=sum(shard.bytes for shard in shards), digest=digest_of(shards), source=source,
        holdout=train.holdout, created_at=datetime.now(UTC),
    )  # fmt: skip
    store.write_bytes(dataset_document(NAME, 1), version.model_dump_json().encode())
    return version, open_index(store, folder, version.digest)


def reinforce(store: ArtifactsStore, **post: Any) -> StoredReinforcement:
    """Make a reinforcement of the data set by its Ray job, on a local cluster; one that is complete is opened only."""
    id = "reinf_" + format(abs(hash(json.dumps(post, sort_keys=True, default=str))), "016x")[-16:]
    folder = reinforcement_folder(NAME, 1, id)
    request = ReinforcementRequest(
        id=id, dataset=NAME, version=1, attempt=1, request=ReinforcementPost.model_validate(post)
    )
    store.write_bytes(reinforcement_request(folder), request.model_dump_json().encode())
    ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    arguments = ["--artifacts", store.root, "--dataset", NAME, "--version", "1", "--reinforcement", id, "--attempt", "1"]
    if jobs.main(["reinforcement", *arguments]):
        raise RuntimeError(f"the reinforcement failed; its events are in {store.uri(folder)}")
    ray.shutdown()
    return StoredReinforcement.open(store, folder)


def write_random_model(folder: Path, layout: Layout) -> str:
    """Write a model of random weights in open_clip's layout; returns its address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_model.safetensors").write_bytes(save(build_model(layout).state_dict()))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip_config(layout), "preprocess_cfg": {}}))
    return f"local-dir:{folder}"
