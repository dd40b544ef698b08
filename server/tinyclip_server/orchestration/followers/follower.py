"""The reconcile loop of rows whose work one Ray job does: exports, evaluations and indexes.

Load the rows, work with files and Ray without a transaction, apply what was seen to the rows that have not changed meanwhile.
Killed at any point, the next round sees the same and does the same. A subclass adds its queries, its job and its events.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent

from tinyclip_server.backends.ray_gateway import RayJobStatus, RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.locks import REMOVAL_TURN_SECONDS, key_of, turn
from tinyclip_server.database.tables import RayJobRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs.intake import MALFORMED
from tinyclip_server.jobs.lifecycle import ABANDONED_SECONDS
from tinyclip_server.orchestration.age import Age
from tinyclip_server.orchestration.ray_jobs.event_segments import read_segments
from tinyclip_server.orchestration.ray_jobs.observation import Observation, RayJob, Verdict, observe
from tinyclip_server.orchestration.ray_jobs.stalls import judge

logger = logging.getLogger(__name__)

MODULE = "tinyclip_workers.jobs"
"""The engine's entry point of all jobs that are followed here; the kind of the job is its subcommand."""

FRESH_SECONDS = 5.0
"""Age at which a row is read again before Ray or files are changed."""
REMOVALS_AT_ONCE = 4
"""Each holds a connection to the database."""
WAITING = "waiting for Ray to start the job"
NOT_TAKEN = "waiting for Ray to take the job"
PENDING_SECONDS = 10.0
"""Time after which a job that Ray does not take or keeps pending shows that it waits."""

Row = TypeVar("Row", bound=RayJobRow)


class Follower(ABC, Generic[Row]):
    """Follows all rows of one resource for one round."""

    noun: str
    """The name of the work in messages."""
    active: Sequence[str]
    """States in which a job is expected to work."""
    deleting: str
    reuses_names = False
    """True if a row can be created again under the name of a removed one, with the same folders."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._removals = asyncio.Semaphore(REMOVALS_AT_ONCE)

    @abstractmethod
    async def unsettled(self, session: AsyncSession) -> Sequence[Row]:
        """Return the rows with a job to follow, and those to be removed."""

    @abstractmethod
    async def job(self, session: AsyncSession, row: Row) -> RayJob: ...

    @abstractmethod
    def folders(self, row: Row) -> Sequence[str]:
        """Return the folders of the artifacts store to remove with the row."""

    @abstractmethod
    async def apply_event(self, session: AsyncSession, row: Row, event: WorkerEvent) -> None:
        """Apply an event to the row. For malformed data it raises one of `MALFORMED`, before it changes anything."""

    @abstractmethod
    def retry(self, row: Row) -> bool:
        """Begin the next attempt, unless there have been enough."""

    @abstractmethod
    def fail(self, row: Row, code: str, message: str) -> None: ...

    async def release(self, row: Row) -> str | None:
        """Remove what lies outside the artifacts store. Return why that is not possible now, if it is not."""
        return None

    async def reconcile(self) -> None:
        async with self._services.db.read() as session:
            rows = [(row, await self.job(session, row)) for row in await self.unsettled(session)]
        work = (self._remove(row, job) if row.state == self.deleting else self._follow(row, job) for row, job in rows)
        done = await asyncio.gather(*work, return_exceptions=True)
        for (_, job), failure in zip(rows, done, strict=True):
            if isinstance(failure, RayUnavailable):
                logger.info("%s: %s", job.submission_id, failure)
            elif isinstance(failure, Exception):
                logger.error("%s: this round failed", job.submission_id, exc_info=failure)

    async def _follow(self, known: Row, job: RayJob) -> None:
        if known.cluster is None and not await self._assign_cluster(known):
            return
        seen = await self._observe(known, job)
        message = _message(known, seen)
        if not seen.has_changes(submitted=known.submitted) and message == known.message:
            return
        if seen.verdict is Verdict.STALLED:
            await self._services.ray.stop_job(job.submission_id)
        async with self._services.db.write() as session:
            row = await self._unchanged(session, known)
            if row is None:
                return
            row.progressed_at = seen.progressed_at(row.progressed_at, submitted=row.submitted)
            row.submitted, row.message, row.updated_at = seen.submitted, message, now()
            row.next_segment += len(seen.segments)
            for events in seen.segments:
                for event in events:
                    await self._apply_event(session, row, event)
            if row.state in self.active and row.ray_submission_id == job.submission_id:  # else its events began another job
                self._judge(row, seen)

    async def _assign_cluster(self, known: Row) -> bool:
        """Record that the job is submitted to this server's cluster. Return False if the row has changed meanwhile."""
        async with self._services.db.write() as session:
            row = await self._unchanged(session, known)
            if row is None or row.cluster is not None:
                return False
            known.cluster = row.cluster = self._services.settings.cluster
        return True

    async def _observe(self, known: Row, job: RayJob) -> Observation:
        """Observe the job; of one on another cluster, whose status is unknown here, read the events only."""
        services = self._services
        if known.cluster != services.settings.cluster:
            seen = Observation(submitted=known.submitted)
            seen.segments, seen.caught_up = await read_segments(services.store, job.events, known.next_segment)
            limit = services.settings.progress_seconds + ABANDONED_SECONDS  # its own servers judge it first
            seen.abandoned = not seen.segments and self._silent(known) >= limit
            return seen
        seen = await observe(
            services, job, known.next_segment, submitted=known.submitted, may_act=partial(self._is_current, known)
        )
        if seen.never_started is not None and await self._is_current(known):
            await services.ray.delete_job(job.submission_id)  # its record, so that the same job can be submitted again
            seen.status = None
        if seen.verdict is Verdict.UNKNOWN:  # also a restarted cluster has no record of it: submit the same job again
            seen.submitted = False
        elif known.submitted:
            judge(services, job.submission_id, seen, known.progressed_at, services.settings.progress_seconds)
        return seen

    async def _apply_event(self, session: AsyncSession, row: Row, event: WorkerEvent) -> None:
        try:
            await self.apply_event(session, row, event)
        except MALFORMED as error:  # skipped: another try would fail too, and would hold up the row for good
            logger.error("%s: %s has malformed data %r: %r", row.ray_submission_id, event.type, event.data, error)

    def _silent(self, known: Row) -> float:
        return (now() - (known.progressed_at or known.updated_at)).total_seconds()

    async def _is_current(self, known: Row) -> bool:
        """Return whether the row has not changed since it was read, as it would have while this server was suspended."""
        age = Age()
        async with self._services.db.read() as session:
            return await self._unchanged(session, known, lock=False) is not None and age.seconds() < FRESH_SECONDS

    def _judge(self, row: Row, seen: Observation) -> None:
        """Act on the end of a job whose events did not end it."""
        if seen.verdict is Verdict.REFUSED:
            self.fail(row, "ray_refused", f"Ray refused the {self.noun}: {seen.refused}")
        elif seen.verdict is Verdict.LOST and seen.status is not None:
            self._retry_or_fail(row, f"{row.ray_submission_id} {seen.status.lower()} without a final event")
        elif seen.verdict is Verdict.STALLED:
            limit = self._services.settings.progress_seconds
            self._retry_or_fail(row, f"{row.ray_submission_id} was stopped: it made no progress for {limit:g} s")
        elif seen.verdict is Verdict.ABANDONED:
            self._retry_or_fail(row, f"{row.ray_submission_id} is given up: no server of its cluster {row.cluster} runs")

    def _retry_or_fail(self, row: Row, lost: str) -> None:
        if self.retry(row):
            row.message = f"{lost}; attempt {row.attempt} begins"
        else:
            self.fail(row, "attempt_lost", f"{lost}, like the attempts before it; its log is in Ray's dashboard")

    async def _remove(self, known: Row, job: RayJob) -> None:
        """Remove what belongs to the row, then the row. Raises RayUnavailable.

        If the name can be used again, one server at a time does it: a late request must not find the files of the next one.
        """
        if not self.reuses_names:
            await self._remove_all(known, job, partial(self._is_current, known))
            return
        async with self._removals, turn(self._services.db, key_of(job.request_path), REMOVAL_TURN_SECONDS) as session:
            if session is not None:
                await self._remove_all(known, job, partial(self._has_turn, session, known))

    async def _has_turn(self, session: AsyncSession, known: Row) -> bool:
        """Return whether the row is current. Raises DBAPIError if the session has lost its lock."""
        await session.execute(sa.select(1))
        return await self._is_current(known)

    async def _remove_all(self, known: Row, job: RayJob, may_act: Callable[[], Awaitable[bool]]) -> None:
        """Remove the request, so that a running job exits; the rest once it has ended. Raises RayUnavailable."""
        elsewhere = known.cluster not in (None, self._services.settings.cluster)
        if not await may_act() or (elsewhere and self._silent(known) < ABANDONED_SECONDS):
            return
        await self._services.store.remove(job.request_path)
        status = await self._services.ray.job_status(job.submission_id) if job.submission_id else None
        if status is not None and not status.ended:
            await self._services.ray.stop_job(job.submission_id)
            return
        obstacle = await self.release(known)
        if obstacle is None:
            for folder in self.folders(known):
                if not await may_act():  # removed meanwhile, and perhaps created again under this name
                    return
                await self._services.store.remove(folder)
        elif obstacle == known.message:
            return
        async with self._services.db.write() as session:
            row = await self._unchanged(session, known)
            if row is not None and obstacle is None:
                await session.delete(row)
            elif row is not None:
                row.message, row.updated_at = obstacle or "", now()

    async def _unchanged(self, session: AsyncSession, known: Row, *, lock: bool = True) -> Row | None:
        """Load the row; None if something else is to be done by now, or its events were applied by another server."""
        key: Any = sa.inspect(known).identity
        row = await session.get(type(known), key, with_for_update=lock or None)
        return row if row is not None and _state(row) == _state(known) else None


def _state(row: RayJobRow) -> tuple[object, ...]:
    return row.created_at, row.version, row.next_segment  # a row may be deleted and created again


def _message(known: RayJobRow, seen: Observation) -> str:
    """Return the message of a row: what its job waits for, once Ray has not started it for a while, else the present one."""
    waits = known.message.startswith((WAITING, NOT_TAKEN))
    late = waits or (now() - known.updated_at).total_seconds() >= PENDING_SECONDS
    if seen.never_started is not None:
        return f"{WAITING}: {seen.never_started}"
    if seen.not_taken is not None:
        return f"{NOT_TAKEN}: {seen.not_taken}" if late else known.message
    if seen.status is RayJobStatus.PENDING and seen.note is not None:
        return f"{WAITING}: {seen.note.message}" if late else known.message
    return "" if waits and seen.answered else known.message
