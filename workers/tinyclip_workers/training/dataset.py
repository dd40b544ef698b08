"""The index of a job's training data: that of its data set, or of its shards, which the job reads once at its start."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
from tinyclip.artifacts.paths import DATASET_DOCUMENT, dataset_samples, dataset_version, job_dataset
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex, digest_of, open_index, write_index, write_shard_samples
from tinyclip_workers.data.index.rows import ShardRow, samples_table
from tinyclip_workers.data.index.scanning import scan_or_empty
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.filesystems import open_filesystem, open_own_store
from tinyclip_workers.runtime.user_files import store_errors

log = logging.getLogger(__name__)

SMALL_BYTES = 256 << 20
"""Shards of at most this many bytes are read here; more of them by the cluster, one task a shard."""
READ_WHOLE_BYTES = 4 << 30
"""Of larger sets of shards, a job reads only as many as it needs pairs."""
TASKS_AHEAD = 64
LOG_SECONDS = 60.0
"""Time between log lines: an attempt that writes nothing for long counts as stalled."""


def prepare_index(run: JobAttempt) -> int:
    """Index the job's shards, unless an attempt has done so or it has a data set. Returns the pairs of an epoch.

    Raises DataError if no shard can be read, or if they have no pair.
    """
    if run.document.dataset is not None:
        return run.document.dataset.pairs
    document = _document(run)
    if document is None:
        _index_shards(run)
        document = _document(run)
        assert document is not None
    return int(document["pairs"])


def open_index_of(run: JobAttempt) -> DatasetIndex:
    """Open the index of the job's training data. Raises OSError."""
    if (version := run.document.dataset) is not None:
        return open_index(run.store, dataset_version(version.name, version.version), version.digest)
    document = _document(run)
    if document is None:
        raise FileNotFoundError(f"{run.store.uri(job_dataset(run.document.job))} has no index; the driver writes it first")
    return open_index(run.store, job_dataset(run.document.job), document["digest"], Skipped(**document["skipped"]))


def _document(run: JobAttempt) -> dict[str, Any] | None:
    data = run.store.read_if_exists(f"{job_dataset(run.document.job)}/{DATASET_DOCUMENT}")
    document: dict[str, Any] | None = None if data is None else json.loads(data)
    return document


def _index_shards(run: JobAttempt) -> None:
    train, folder = run.spec.data.train, job_dataset(run.document.job)
    urls = expand_shards(train.patterns)
    sizes = [_size(url) for url in urls]
    needed = _needed_pairs(run.spec) if sum(sizes) > READ_WHOLE_BYTES else None
    order = np.random.default_rng(run.spec.seed).permutation(len(urls)).tolist() if needed else list(range(len(urls)))
    shards: dict[int, ShardRow] = {}
    skipped, logged_at = Skipped(), time.monotonic()
    for number, shard, found in _scan(run.store, folder, train, [(number, urls[number]) for number in order], sum(sizes)):
        shards[number] = shard
        skipped = Skipped.sum([skipped, found])
        if needed and sum(each.pairs for each in shards.values()) >= needed:
            break
        if time.monotonic() - logged_at >= LOG_SECONDS:
            logged_at = time.monotonic()
            log.info("indexed %d of %d shards", len(shards), len(urls))
    if not any(shard.samples for shard in shards.values()):
        raise DataError(f"none of the {len(urls)} shards can be read, the first is {urls[0]}; check the paths", value=urls[0])
    _write(run, folder, [shards.get(number) or ShardRow(url, 0, None, 0, 0) for number, url in enumerate(urls)], skipped)


def _write(run: JobAttempt, folder: str, shards: Sequence[ShardRow], skipped: Skipped) -> None:
    for number, shard in enumerate(shards):
        if not shard.samples and not run.store.exists(dataset_samples(folder, number)):
            write_shard_samples(run.store, folder, number, samples_table([]))
    write_index(run.store, folder, shards)
    pairs = sum(shard.pairs for shard in shards)
    if not pairs:
        examples = "; ".join(skipped.examples) or "all are held out"
        raise DataError(f"no pair of the shards can be used ({examples}); check image_key, caption_key and holdout")
    document = {
        "digest": digest_of(shards), "samples": sum(shard.samples for shard in shards), "pairs": pairs,
        "shards": sum(shard.samples > 0 for shard in shards), "skipped": asdict(skipped),
    }  # fmt: skip
    log.info("indexed %s pairs in %s shards", f"{pairs:,}", f"{document['shards']:,}")
    run.store.create_bytes(f"{folder}/{DATASET_DOCUMENT}", json.dumps(document).encode())


def _needed_pairs(spec: JobSpec) -> int | None:
    """Return the pairs that the job trains on; `None` if a stage counts epochs."""
    needed = 0
    for stage in spec.stages:
        batch_size, length = stage.batch_size or spec.batch_size, stage.train
        if length.epochs is not None:
            return None
        needed += length.steps * batch_size if length.steps is not None else length.samples or 0
    return needed


Scanned = tuple[int, ShardRow, Skipped]


def _scan(
    store: ArtifactsStore, folder: str, train: TrainData, shards: Sequence[tuple[int, str]], total_bytes: int
) -> Iterator[Scanned]:
    """Scan shards and write their samples; yields number, shard and what is skipped, in any order."""
    if total_bytes <= SMALL_BYTES:
        for number, url in shards:
            yield _scan_one(store, folder, train, number, url)
        return
    remote = ray.remote(num_cpus=1, max_retries=3)(_scan_one_of)
    task = (remote.remote(store.root, folder, train.model_dump(), number, url).future() for number, url in shards)
    yield from _completed(task)


def _completed(tasks: Iterable[Future[Scanned]]) -> Iterator[Scanned]:
    """Yield the results of tasks, of which at most TASKS_AHEAD are submitted at a time."""
    running: set[Future[Scanned]] = set()
    source = iter(tasks)
    while True:
        for future in source:
            running.add(future)
            if len(running) >= TASKS_AHEAD:
                break
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _scan_one_of(root: str, folder: str, train: dict[str, Any], number: int, url: str) -> Scanned:
    return _scan_one(open_own_store(root), folder, TrainData.model_validate(train), number, url)


def _scan_one(store: ArtifactsStore, folder: str, train: TrainData, number: int, url: str) -> Scanned:
    scanned = scan_or_empty(url, train)
    write_shard_samples(store, folder, number, scanned.samples)
    return number, scanned.shard, scanned.skipped


def _size(url: str) -> int:
    """Return the bytes of a shard; 0 if they are not known."""
    try:
        fs, path = open_filesystem(url)
        with store_errors(url):
            return int(fs.size(path) or 0)
    except (OSError, ValueError):
        return 0
