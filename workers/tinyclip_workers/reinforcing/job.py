"""Make a reinforcement: the work of the Ray job `tc-reinforcement-<id>-a<attempt>`, started by `tinyclip_workers.jobs`.

Actors write two files for each shard; an attempt that finds the files of an earlier one continues with the shards that are
missing. The same request has the same bytes, however often it is interrupted. `reinforcement.json` is written last.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from pydantic import ValidationError
from tinyclip.artifacts.documents import ReinforcementDocument, ReinforcementRequest, StoredTeacher
from tinyclip.artifacts.paths import (
    reinforcement_document,
    reinforcement_folder,
    reinforcement_request,
    reinforcement_work,
)
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.reinforcing import progress
from tinyclip_workers.reinforcing.actor import EncoderActor, teacher_failure
from tinyclip_workers.reinforcing.inputs import open_version, teacher_bytes
from tinyclip_workers.reinforcing.merging import finish_group_of, groups_of, merge_part_of, part_count
from tinyclip_workers.reinforcing.pool import EncoderPool, EncodingFailed, actor_count
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.runtime.ray_job import JobFailed, RequestWithdrawn
from tinyclip_workers.versions.writer import json_bytes

log = logging.getLogger(__name__)

WANTED_SECONDS = 5.0
"""Between two readings of the request: a superseded or deleted one ends the job."""
MAX_THREADS = 8
"""Threads that decode images for one GPU."""
BASE_BYTES, COPIES = 1 << 30, 3
"""Memory of an actor: so much, and so many times its teachers' weights, for what they compute."""
ENCODING = 0.98
"""Share of the progress when all shards are encoded; the rest is for merging the texts."""
TASKS_AHEAD = 64


def reinforce(store: ArtifactsStore, dataset: str, version: int, id: str, attempt: int, events: EventWriter) -> None:
    """Make the reinforcement, and emit `reinforcement.finished`. Raises RequestWithdrawn, JobFailed."""
    started, folder = time.monotonic(), reinforcement_folder(dataset, version, id)
    request = _read_request(store, folder, attempt)
    if not store.exists(reinforcement_document(folder)):
        try:
            _Reinforcing(store, folder, request, attempt, events).run()
        except EncodingFailed as error:
            failure = error.failure
            raise JobFailed(failure.code, failure.message, pointer=failure.pointer, value=failure.value) from error
        except (DataError, OSError) as error:
            raise JobFailed("unusable_data" if isinstance(error, DataError) else "reinforcement_failed", str(error)) from error
    store.remove(reinforcement_work(folder))
    document = ReinforcementDocument.model_validate_json(store.read_bytes(reinforcement_document(folder)))
    data = {**document.model_dump(mode="json"), "seconds": round(time.monotonic() - started, 1)}
    events.send("reinforcement.finished", message=_summary(document), data=data)


class _Reinforcing:
    """One attempt at a reinforcement."""

    def __init__(
        self, store: ArtifactsStore, folder: str, request: ReinforcementRequest, attempt: int, events: EventWriter
    ) -> None:
        self._store, self._folder, self._request, self._attempt, self._events = store, folder, request, attempt, events
        self._version, index = open_version(store, request.dataset, request.version)
        self._shards = [number for number, shard in enumerate(index.shards) if shard.pairs]
        self._pairs = index.pairs
        self._asked_at = time.monotonic()

    def run(self) -> None:
        """Write everything that is missing. Raises RequestWithdrawn, EncodingFailed, DataError, OSError."""
        if not ray.is_initialized():
            ray.init()
        self._report(0, "loading the teachers")
        pool = EncoderPool(self._make_actor(), self._actor_count())
        try:
            described = pool.describe(self._expect_wanted)
            counts = self._encode(pool, described)
        finally:
            pool.close()
        texts, text_bytes = self._merge(described, sum(each.texts for each in counts))
        document = document_of(self._request, self._version, described, counts, texts, text_bytes)
        _read_request(self._store, self._folder, self._attempt)
        self._store.write_bytes(reinforcement_document(self._folder), json_bytes(document.model_dump(mode="json")))

    def _actor_count(self) -> int:
        try:
            each = BASE_BYTES + COPIES * teacher_bytes(self._request.request)
        except TeacherError as error:
            raise EncodingFailed(teacher_failure(error)) from error
        count = actor_count(len(self._shards), ray.cluster_resources(), each)
        log.info("encoding with at most %d actors", count)
        return count

    def _make_actor(self) -> Callable[[], Any]:
        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        threads = max(1, min(MAX_THREADS, cpus // gpus)) if gpus else 1
        options: Any = {"num_cpus": threads, "num_gpus": int(gpus > 0), "max_concurrency": 2, "max_restarts": 0}
        remote: Any = ray.remote(**options)(EncoderActor)
        document = self._request.model_dump(mode="json")
        return lambda: remote.remote(self._store.root, self._folder, document, threads, bool(gpus))

    def _encode(self, pool: EncoderPool, described: dict[str, Any]) -> list[progress.ShardCounts]:
        """Encode the shards that are missing; returns the counts of all."""
        plan = {"request": self._request.request.model_dump(mode="json"), "digest": self._version.digest, **described}
        results = [f"{self._folder}/images", f"{self._folder}/texts"]
        resumed = progress.begin(self._store, self._folder, plan, results)
        there = progress.encoded_shards(self._store, self._folder) if resumed else set()
        counts = {shard: progress.read_counts(self._store, self._folder, shard) for shard in sorted(there)}
        if there:
            log.info("continuing: %d of %d shards are encoded", len(there), len(self._shards))
        done = sum(each.samples + each.skipped for each in counts.values())

        def report(within: int) -> None:
            self._report(ENCODING * (done + within) / max(1, self._pairs), f"{done + within:,} of {self._pairs:,} samples")

        for shard, found in pool.run([each for each in self._shards if each not in counts], self._expect_wanted, report):
            counts[shard] = found
            done += found.samples + found.skipped
            for example in found.examples:
                log.warning("skipped %s", example)
        if not any(each.samples for each in counts.values()):
            examples = "; ".join(example for each in counts.values() for example in each.examples[:1])
            raise DataError(f"no sample of {self._version.name}@{self._version.version} could be read ({examples})")
        return [counts[shard] for shard in self._shards]

    def _merge(self, described: dict[str, Any], texts: int) -> tuple[int, int]:
        """Store each text once; returns the number of texts and their bytes."""
        parts, post = part_count(texts), self._request.request
        widths = [teacher["embed_dim"] for teacher in described["teachers"]]
        self._report(ENCODING, "merging the texts")
        shared = self._store.root, self._folder
        missing = [part for part in range(parts) if not self._store.exists(progress.merged_part(self._folder, part))]
        self._run_tasks(merge_part_of, [(*shared, self._shards, part, parts) for part in missing])
        groups = groups_of(self._shards)
        there = progress.final_groups(self._store, self._folder)
        arguments = [(*shared, number, group, parts, widths, post.dtype) for number, group in enumerate(groups)]
        self._run_tasks(finish_group_of, [each for each in arguments if each[2] not in there])
        counts = [progress.read_group(self._store, self._folder, number) for number in range(len(groups))]
        return sum(each["texts"] for each in counts), sum(each["bytes"] for each in counts)

    def _run_tasks(self, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Run tasks on the cluster, at most TASKS_AHEAD at a time; those of lost workers are repeated."""
        options: Any = {"num_cpus": 1, "max_retries": 3, "retry_exceptions": True}
        remote: Any = ray.remote(**options)(function)
        submitted: Iterator[Any] = (remote.remote(*each) for each in arguments)
        running: list[Any] = []
        while True:
            while len(running) < TASKS_AHEAD and (task := next(submitted, None)) is not None:
                running.append(task)
            if not running:
                return
            done, running = ray.wait(running, timeout=WANTED_SECONDS)
            ray.get(done)
            self._expect_wanted()

    def _report(self, fraction: float, message: str) -> None:
        self._events.send("reinforcement.progress", message=message, data={"fraction": round(min(1.0, fraction), 4)})

    def _expect_wanted(self) -> None:
        """Raises RequestWithdrawn."""
        if time.monotonic() - self._asked_at >= WANTED_SECONDS:
            self._asked_at = time.monotonic()
            _read_request(self._store, self._folder, self._attempt)


def document_of(
    request: ReinforcementRequest,
    version: DatasetVersion,
    described: dict[str, Any],
    counts: Sequence[progress.ShardCounts],
    texts: int,
    text_bytes: int,
) -> ReinforcementDocument:
    """Return the document of a complete reinforcement. `described`: by the actors; `counts`: of the shards."""
    post, samples = request.request, sum(each.samples for each in counts)
    return ReinforcementDocument(
        id=request.id, dataset=request.dataset, version=request.version, digest=version.digest,
        teachers=[StoredTeacher.model_validate(teacher) for teacher in described["teachers"]],
        context_length=described["context_length"], augmentations=post.augmentations, augment=post.augment,
        captions=post.captions, dtype=post.dtype, precision=described["precision"], shards=len(counts),
        samples=samples, skipped=sum(each.skipped for each in counts), views=samples * post.augmentations, texts=texts,
        bytes=sum(each.bytes for each in counts) + text_bytes,
    )  # fmt: skip


def _read_request(store: ArtifactsStore, folder: str, attempt: int) -> ReinforcementRequest:
    """Raises RequestWithdrawn, JobFailed."""
    path = reinforcement_request(folder)
    try:
        request = ReinforcementRequest.model_validate_json(store.read_bytes(path))
    except FileNotFoundError as error:
        raise RequestWithdrawn(f"{folder} was deleted") from error
    except ValidationError as error:
        raise JobFailed("reinforcement_failed", f"{store.uri(path)} is not a request for a reinforcement: {error}") from error
    if request.attempt != attempt:
        raise RequestWithdrawn(f"{folder} is at attempt {request.attempt}, this is {attempt}")
    return request


def _summary(document: ReinforcementDocument) -> str:
    skipped = f"; {document.skipped:,} samples could not be read" if document.skipped else ""
    return f"{document.views:,} views and {document.texts:,} texts, {document.bytes:,} bytes{skipped}"
