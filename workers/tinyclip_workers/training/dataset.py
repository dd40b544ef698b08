"""The index of a job's training data: that of its data set, or of its shards, which the job reads once at its start."""

import json
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import numpy as np
from tinyclip.artifacts.paths import DATASET_DOCUMENT, dataset_lacking, dataset_shard_summary, dataset_version, job_dataset
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex, digest_of, open_index, write_index, write_shard_samples
from tinyclip_workers.data.index.joining import JoinedCaptions, JoinedFile
from tinyclip_workers.data.index.rows import ShardRow
from tinyclip_workers.data.index.scanning import scan_or_empty
from tinyclip_workers.data.index.values import count_lacking
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.shard_files import describe_shard
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.filesystems import open_own_store
from tinyclip_workers.runtime.ray_tasks import run_tasks

log = logging.getLogger(__name__)

SMALL_BYTES = 256 << 20
"""Shards of at most this many bytes are read here; more of them by the cluster, one task a shard."""
READ_WHOLE_BYTES = 4 << 30
"""A job reads only as many of the shards of a larger set as it needs pairs."""
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
    """Scan the shards and write their index. Raises DataError."""
    train, folder = run.spec.data.train, job_dataset(run.document.job)
    urls = expand_shards(train.patterns)
    total = sum(_bytes(url) for url in urls)
    needed = _needed_pairs(run.spec) if total > READ_WHOLE_BYTES else None
    order = np.random.default_rng(run.spec.seed).permutation(len(urls)).tolist() if needed else list(range(len(urls)))
    shards = [ShardRow(url, 0, None, 0, 0) for url in urls]
    skipped, scanned, pairs, logged_at = list[Skipped](), 0, 0, time.monotonic()
    with closing(_scan(run.store, folder, train, [(number, urls[number]) for number in order], total)) as found:
        for number, shard, broken in found:
            shards[number] = shard
            scanned, pairs = scanned + 1, pairs + shard.pairs
            skipped.append(broken)
            if needed and pairs >= needed:
                break
            if time.monotonic() - logged_at >= LOG_SECONDS:
                logged_at = time.monotonic()
                log.info("indexed %d of %d shards", scanned, len(urls))
    if not any(shard.samples for shard in shards):
        raise DataError(f"none of the {len(urls)} shards can be read, the first is {urls[0]}; check the paths", value=urls[0])
    _write(run, folder, shards, Skipped.sum(skipped))


def _write(run: JobAttempt, folder: str, shards: Sequence[ShardRow], skipped: Skipped) -> None:
    pairs = sum(shard.pairs for shard in shards)
    if not pairs:
        examples = "; ".join(skipped.examples) or "all are held out"
        raise DataError(f"no pair of the shards can be used ({examples}); check image_key, caption_key and holdout")
    train = run.spec.data.train
    joined = _join_captions(run, folder, shards)
    write_index(run.store, folder, shards)
    settings = [train.languages, joined] if train.languages or joined else None
    document = {
        "digest": digest_of(shards, settings), "samples": sum(shard.samples for shard in shards), "pairs": pairs,
        "shards": sum(shard.samples > 0 for shard in shards), "skipped": asdict(skipped),
    }  # fmt: skip
    log.info("indexed %s pairs in %s shards", f"{pairs:,}", f"{document['shards']:,}")
    lacking = count_lacking(run.store, dataset_lacking(folder), pairs, len(train.languages))
    for language, count in zip(train.languages, lacking, strict=True):
        if count == pairs:
            message = f"no pair has a caption in {language}; correct data.train.languages, or add captions"
            raise DataError(message, field="data.train.languages", value=language)
        if count:
            log.warning("%s of %s pairs have no caption in %s", f"{count:,}", f"{pairs:,}", language)
    run.store.create_bytes(f"{folder}/{DATASET_DOCUMENT}", json.dumps(document).encode())


def _join_captions(run: JobAttempt, folder: str, shards: Sequence[ShardRow]) -> str | None:
    """Join the captions of the spec's file to the samples. Returns the file's digest; None without one. Raises DataError."""
    train, joined, logged_at = run.spec.data.train, JoinedCaptions(), time.monotonic()
    if train.captions is None:
        return None

    def on_step(message: str) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= LOG_SECONDS:
            logged_at = time.monotonic()
            log.info("joining captions: %s", message)

    file = JoinedFile(run.store, folder, train.captions, train.languages, joined, field="data.train.captions")
    filled = [number for number, shard in enumerate(shards) if shard.samples]
    file.join(filled, lambda *_: None, lambda _: None, on_step)
    log.info("joined %s captions to %s samples", f"{joined.captions:,}", f"{joined.samples:,}")
    if joined.unknown:  # a file may be that of several sets
        log.info("%s has %s keys of no sample", train.captions, f"{joined.unknown:,}")
    if joined.malformed:
        log.warning("%s has %s lines that are no key with captions", train.captions, f"{joined.malformed:,}")
    if not joined.samples:
        message = f"{train.captions} has captions of none of the samples; its keys are names in the shards up to the first dot"
        raise DataError(message, field="data.train.captions", value=train.captions)
    return joined.sha256


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
) -> Generator[Scanned, None, None]:
    """Scan shards and write their samples; yields number, shard and what was skipped, in any order. Tasks end with it."""
    if total_bytes <= SMALL_BYTES:
        for number, url in shards:
            yield scan_into(store, folder, train, number, url)
        return
    calls = [(store.root, folder, train.model_dump(), number, url) for number, url in shards]
    for step in run_tasks(scan_shard_of_job, calls):
        if step is not None and step.finished:
            number = shards[step.call][0]
            yield number, *_read_summary(store, folder, number)


def scan_shard_of_job(root: str, folder: str, train: dict[str, Any], number: int, url: str) -> Iterator[float]:
    """Scan a shard as a Ray task, and write its samples and then its summary."""
    store = open_own_store(root)
    _, shard, skipped = scan_into(store, folder, TrainData.model_validate(train), number, url)
    summary = {"shard": asdict(shard), "skipped": asdict(skipped)}
    store.write_bytes(dataset_shard_summary(folder, number), json.dumps(summary).encode())
    yield 1.0


def _read_summary(store: ArtifactsStore, folder: str, number: int) -> tuple[ShardRow, Skipped]:
    summary = json.loads(store.read_bytes(dataset_shard_summary(folder, number)))
    return ShardRow(**summary["shard"]), Skipped(**summary["skipped"])


def scan_into(store: ArtifactsStore, folder: str, train: TrainData, number: int, url: str) -> Scanned:
    """Scan a shard and write its samples."""
    scanned = scan_or_empty(url, train)
    write_shard_samples(store, folder, number, scanned.samples)
    return number, scanned.shard, scanned.skipped


def _bytes(url: str) -> int:
    """Return the size of a shard; 0 for one that cannot be read, which its scan reports."""
    try:
        return describe_shard(url).bytes
    except (OSError, ValueError):
        return 0
