"""Follows each index from its request to its end: submit the build's job, read what it wrote, remove what is deleted.

Load the rows, work with files and Ray without a transaction, apply what was seen to the rows that nobody has changed meanwhile.
"""

import asyncio
import json
import logging
import shlex
from dataclasses import dataclass, field

from tinyclip.schemas import IndexState
from tinyclip.schemas.artifacts import WorkerEvent, index_build_events, index_folder, model_version, segment

from tinyclip_server.db import now
from tinyclip_server.indexes import repository
from tinyclip_server.ray_gateway import RayJobStatus, RayRefused, RayUnavailable
from tinyclip_server.services import Services
from tinyclip_server.tables import IndexRow

logger = logging.getLogger(__name__)

MOST_SEGMENTS = 200


@dataclass
class Seen:
    """What was done and seen; nothing of it is in the database yet."""

    submitted: bool = False
    refused: str | None = None
    ended: RayJobStatus | None = None
    """How the job ended, if it did and all that it wrote is in `segments`."""
    segments: list[list[WorkerEvent]] = field(default_factory=list)
    removed: bool = False


async def reconcile(services: Services) -> None:
    """One round over all indexes that are being built or deleted."""
    async with services.db.read() as session:
        rows = await repository.unsettled(session)
    done = await asyncio.gather(*(_follow(services, row) for row in rows), return_exceptions=True)
    for row, failure in zip(rows, done, strict=True):
        if isinstance(failure, RayUnavailable):
            logger.info("index %s: %s", row.name, failure)
        elif isinstance(failure, Exception):
            logger.error("index %s: this round failed", row.name, exc_info=failure)


async def _follow(services: Services, known: IndexRow) -> None:
    seen = await (_remove(services, known) if known.state == IndexState.DELETING else _build(services, known))
    if seen == Seen(submitted=known.submitted):
        return
    async with services.db.write() as session:
        row = await session.get(IndexRow, known.name, with_for_update=True)
        if row is None or (row.version, row.next_segment) != (known.version, known.next_segment):
            return
        if seen.removed:
            await session.delete(row)
        else:
            _apply(row, seen)


async def _build(services: Services, row: IndexRow) -> Seen:
    """Raises RayUnavailable."""
    seen = Seen(submitted=row.submitted)
    assert row.ray_submission_id is not None
    if not row.submitted:
        try:
            await _submit(services, row, row.ray_submission_id)
        except RayRefused as error:
            return Seen(refused=str(error))
        seen.submitted = True
    # Ray's word before the segments: what is read after an end was seen is all there will be.
    status = await services.ray.job_status(row.ray_submission_id)
    seen.segments, caught_up = await _read_segments(services, row)
    if status is None:  # a cluster that was started anew has forgotten it: give it the same job again
        seen.submitted = False
    elif status.ended and caught_up:
        seen.ended = status
    return seen


async def _submit(services: Services, row: IndexRow, submission_id: str) -> None:
    """The request first: the job reads it at once. A job that Ray has already under this id is ours."""
    model = f"{row.model_name}@{row.model_version}"
    uri = services.store.uri(model_version(row.model_name, row.model_version))
    request = {"name": row.name, "build": row.build, "model": model, "model_uri": uri, "source": row.spec["source"]}
    await services.store.write(f"{index_folder(row.name)}/request.json", json.dumps(request).encode())
    entrypoint = "exec " + shlex.join(
        [
            services.settings.worker_python, "-m", "tinyclip_workers.indexing", "--artifacts", services.store.root,
            "--index", row.name, "--build", str(row.build),
        ]
    )
    await services.ray.submit_job(submission_id, entrypoint, {"job_name": f"index {row.name}", "tinyclip_index": row.name})


async def _read_segments(services: Services, row: IndexRow) -> tuple[list[list[WorkerEvent]], bool]:
    """What the build wrote since the read position, and whether that is all there was."""
    folder = index_build_events(row.name, row.build)
    segments: list[list[WorkerEvent]] = []
    while len(segments) < MOST_SEGMENTS:
        data = await services.store.read(segment(folder, row.next_segment + len(segments)))
        if data is None:
            return segments, True
        segments.append([WorkerEvent.model_validate_json(line) for line in data.splitlines()])
    return segments, False


async def _remove(services: Services, row: IndexRow) -> Seen:
    """The request first, so that a build under way leaves by itself; the rest when its job has ended. Raises RayUnavailable."""
    await services.store.remove(f"{index_folder(row.name)}/request.json")
    status = await services.ray.job_status(row.ray_submission_id) if row.ray_submission_id else None
    if row.ray_submission_id and status is not None and not status.ended:
        await services.ray.stop_job(row.ray_submission_id)
        return Seen(submitted=row.submitted)
    await services.store.remove(index_folder(row.name))
    return Seen(removed=True)


def _apply(row: IndexRow, seen: Seen) -> None:
    row.submitted, row.updated_at = seen.submitted, now()
    row.next_segment += len(seen.segments)
    for event in (event for events in seen.segments for event in events):
        _apply_event(row, event)
    if row.state != IndexState.BUILDING:
        return
    if seen.refused is not None:
        row.state, row.message = IndexState.FAILED, f"Ray refused the build: {seen.refused}"
    elif seen.ended is not None:
        row.state = IndexState.FAILED
        row.message = f"the build's job {row.ray_submission_id} {seen.ended.lower()} without a word; Ray has its log. PUT again"


def _apply_event(row: IndexRow, event: WorkerEvent) -> None:
    if event.type == "index.progress":
        done, total = event.data["done"], event.data["total"]
        row.progress = min(0.99, done / total) if total else 0.0
        row.message = f"{done:,} items" + (f" of about {total:,}" if total else "")
    elif event.type == "index.finished":
        row.state, row.progress, row.count, row.message = IndexState.READY, 1.0, event.data["count"], event.message
    elif event.type == "index.failed":
        row.state, row.message = IndexState.FAILED, event.message
