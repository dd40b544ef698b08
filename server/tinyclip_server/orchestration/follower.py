"""Follows rows whose work one Ray job does, as index builds and evaluations: submit the job, read what it wrote, remove it.

Load the rows, work with files and Ray without a transaction, apply what was seen to the rows that nobody has changed meanwhile.
Killed at any point, the next round sees the same and does the same.
"""

import asyncio
import json
import logging
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.schemas import JSON

from tinyclip_server.backends.ray_gateway import RayJobStatus, RayRefused, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import RayWork
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.attempts import new_segments

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=RayWork)


@dataclass(frozen=True)
class Work:
    """What a row's job is."""

    kind: Literal["export", "evaluation", "index"]
    """Of a job of `tinyclip_workers.jobs`, run with `--artifacts ROOT` and `arguments`."""
    arguments: list[str]
    title: str
    metadata: dict[str, str]
    folder: str
    """Everything of the row in the artifacts store."""
    events: str
    request: JSON
    """Written as `request.json` of the folder before the job is submitted; a job that does not find it leaves by itself."""
    leaves: Sequence[str] = ()
    """Folders elsewhere in the store that go with the row."""
    release: Callable[[], Awaitable[str | None]] | None = None
    """Removes what is elsewhere altogether, before the folder that tells of it; why it is still there, if it is."""

    @property
    def request_path(self) -> str:
        return f"{self.folder}/request.json"


@dataclass
class Seen:
    """What was done and seen; nothing of it is in the database yet."""

    submitted: bool = False
    refused: str | None = None
    ended: RayJobStatus | None = None
    """How the job ended, if it did and all that it wrote is in `segments`."""
    segments: list[list[WorkerEvent]] = field(default_factory=list)
    removed: bool = False
    kept: str = ""
    """Why it could not be removed now, if the row does not say so yet."""

    @property
    def events(self) -> list[WorkerEvent]:
        return [event for events in self.segments for event in events]


async def follow_all(
    services: Services,
    rows: Sequence[Row],
    work_of: Callable[[Row], Work],
    apply: Callable[[AsyncSession, Row, Seen], Awaitable[None]],
    *,
    deleting: str,
) -> None:
    """One round over rows; those in the state `deleting` are removed, the others' jobs are followed."""

    async def follow(known: Row) -> None:
        work = work_of(known)
        seen = await (_remove(services, known, work) if known.state == deleting else _look(services, known, work))
        if seen != Seen(submitted=known.submitted):
            await _write_down(services, known, seen, apply)

    done = await asyncio.gather(*(follow(row) for row in rows), return_exceptions=True)
    for row, failure in zip(rows, done, strict=True):
        if isinstance(failure, RayUnavailable):
            logger.info("%s: %s", row.ray_submission_id, failure)
        elif isinstance(failure, Exception):
            logger.error("%s: this round failed", row.ray_submission_id, exc_info=failure)


async def _write_down(
    services: Services, known: Row, seen: Seen, apply: Callable[[AsyncSession, Row, Seen], Awaitable[None]]
) -> None:
    async with services.db.write() as session:
        key: Any = sa.inspect(known).identity
        row = await session.get(type(known), key, with_for_update=True)
        if row is None or (row.version, row.next_segment) != (known.version, known.next_segment):
            return
        if seen.removed:
            await session.delete(row)
            return
        row.submitted, row.updated_at, row.message = seen.submitted, now(), seen.kept or row.message
        row.next_segment += len(seen.segments)
        await apply(session, row, seen)


async def _look(services: Services, row: RayWork, work: Work) -> Seen:
    """Raises RayUnavailable."""
    seen = Seen(submitted=row.submitted)
    assert row.ray_submission_id is not None
    if not row.submitted:
        try:
            await _submit(services, row.ray_submission_id, work)
        except RayRefused as error:
            return Seen(refused=str(error))
        seen.submitted = True
    # Ray's word before the segments: what is read after an end was seen is all there will be.
    status = await services.ray.job_status(row.ray_submission_id)
    seen.segments, caught_up = await new_segments(services.store, work.events, row.next_segment)
    if status is None:  # a cluster that was started anew has forgotten it: give it the same job again
        seen.submitted = False
    elif status.ended and caught_up:
        seen.ended = status
    return seen


async def _submit(services: Services, submission_id: str, work: Work) -> None:
    """The request first: the job reads it at once. A job that Ray has already under this id is ours."""
    await services.store.write_bytes(work.request_path, json.dumps(work.request).encode())
    module = [services.settings.worker_python, "-m", "tinyclip_workers.jobs"]
    command = [*module, work.kind, "--artifacts", services.store.root, *work.arguments]
    await services.ray.submit_job(submission_id, "exec " + shlex.join(command), {"job_name": work.title, **work.metadata})


async def _remove(services: Services, row: RayWork, work: Work) -> Seen:
    """The request first, so that a job under way leaves by itself; the rest when it has ended. Raises RayUnavailable."""
    await services.store.remove(work.request_path)
    status = await services.ray.job_status(row.ray_submission_id) if row.ray_submission_id else None
    if row.ray_submission_id and status is not None and not status.ended:
        await services.ray.stop_job(row.ray_submission_id)
        return Seen(submitted=row.submitted)
    kept = await work.release() if work.release is not None else None
    if kept is not None:
        return Seen(submitted=row.submitted, kept=kept if kept != row.message else "")
    for folder in (*work.leaves, work.folder):
        await services.store.remove(folder)
    return Seen(removed=True)
