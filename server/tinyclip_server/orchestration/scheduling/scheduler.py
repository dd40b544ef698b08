"""Runs a reconcile loop over the training jobs: claim, observe, apply.

Claim and apply are short transactions; the slow work between them, with files and Ray, holds none. An observation counts
only if the lease still holds when it is applied. Killed at any point, the next round sees the same and does the same.
"""

import asyncio
import logging
import secrets
import time
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, text, true, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import raiseload
from structlog.contextvars import bind_contextvars
from tinyclip.schemas import JobState

from tinyclip_server.backends.ray_gateway import RayJobStatus
from tinyclip_server.database.engine import now
from tinyclip_server.database.locks import sqlite_file
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs.intake import apply_event
from tinyclip_server.jobs.lifecycle import (
    ON_CLUSTER,
    AttemptOutcome,
    attempt_interrupted,
    begin_attempt,
    end_attempt,
    record,
    show_waiting,
)
from tinyclip_server.models import service as models
from tinyclip_server.orchestration.ray_jobs.event_segments import read_segments
from tinyclip_server.orchestration.ray_jobs.observation import Observation, Verdict
from tinyclip_server.orchestration.scheduling.attempts import Claim, observe_attempt, timeouts_of
from tinyclip_server.orchestration.scheduling.leases import claimable, of_lost_cluster
from tinyclip_server.orchestration.scheduling.verdicts import judge, time_out

logger = logging.getLogger(__name__)

ACTIVE = (JobState.QUEUED, *ON_CLUSTER)
START_LOCK = 7_201_322
"""PostgreSQL's advisory lock under which one scheduler at a time counts the running jobs and starts the next."""

SERVICE_STOPPED = "the service was stopped; started again, it continues from the last checkpoint"
RETRY_SECONDS = 2.0
PENDING_SECONDS = 10.0
"""Time after which a driver that Ray does not take or keeps pending is reported; a shorter one is part of every start."""
PENDING_REPEAT_SECONDS = 60.0


class Scheduler:
    """The reconcile loop of one server; several servers share the jobs by leases."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._owner, self._cluster = secrets.token_hex(8), services.settings.cluster
        self._status_at: dict[str, float] = {}
        self._held_up: set[str] = set()
        """Submission ids of the attempts whose files could not be written in the last round."""
        self._pending: dict[str, float] = {}
        """When the next report of each pending driver is due, by submission id."""

    async def tick(self) -> None:
        """Run one round over all jobs that are queued or on the cluster."""
        claims = await self._claim()
        self._status_at = {claim.submission_id: self._status_at.get(claim.submission_id, 0.0) for claim in claims}
        self._pending = {id: due for id, due in self._pending.items() if id in self._status_at}
        done = await asyncio.gather(*(self._follow(claim) for claim in claims), return_exceptions=True)
        for claim, failure in zip(claims, done, strict=True):
            if isinstance(failure, Exception):
                logger.error("job %s: this round failed", claim.job_id, exc_info=failure)

    async def release(self) -> None:
        """Give up all leases, so that another server need not wait until they expire."""
        async with self._services.db.write() as session:
            leased = update(JobRow).where(JobRow.lease_owner == self._owner)
            await session.execute(leased.values(lease_owner="", lease_until=now()))

    async def interrupt_all(self, *, every_cluster: bool = False) -> None:
        """End the attempts of this server's cluster, which is gone: by the events that they still wrote, else by queueing.

        Attempts of other clusters are left alone, unless no other server can use the database (`every_cluster`).
        """
        async with self._services.db.write() as session:
            lost = true() if every_cluster else of_lost_cluster(self._owner, self._cluster)
            claims = await self._lease(session, lost)
        for claim in claims:
            caught_up = False
            while not caught_up:
                segments, caught_up = await read_segments(self._services.store, claim.ray_job.events, claim.next_segment)
                await self._apply(claim, Observation(submitted=claim.submitted, segments=segments))
                claim = replace(claim, next_segment=claim.next_segment + len(segments))
            await self._interrupt(claim)

    async def interrupt_when_reachable(self) -> None:
        """End the attempts of this server's cluster as soon as their events can be read.

        A SQLite file has no other server. So its attempts are this one's, also those of a restored backup, or of a data folder
        that is gone; what still runs of them sees the next attempt's fence.
        """
        while True:
            try:
                await self.interrupt_all(every_cluster=sqlite_file(self._settings.async_database_url) is not None)
                return
            except (OSError, SQLAlchemyError) as error:
                logger.warning("the attempts of the last cluster wait for their events: %s", error or type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def _interrupt(self, claim: Claim) -> None:
        async with self._services.db.write() as session:
            job = await session.get_one(JobRow, claim.job_id, with_for_update=True)
            attempt = await session.get_one(AttemptRow, (claim.job_id, claim.attempt))
            if job.lease_token != claim.lease_token or job.state not in ON_CLUSTER:
                return
            newest = await session.get_one(AttemptRow, (job.id, job.attempt))  # the retry of one whose events ended it
            if attempt.outcome is None:
                record(session, job, "attempt.interrupted", "its cluster was stopped", attempt=attempt.number)
            end_attempt(newest, AttemptOutcome.INTERRUPTED, "its cluster was stopped")
            attempt_interrupted(session, job, SERVICE_STOPPED)

    async def _follow(self, claim: Claim) -> None:
        bind_contextvars(job_id=claim.job_id, attempt=claim.attempt)  # each claim is followed in a task of its own
        ask_ray = time.monotonic() - self._status_at[claim.submission_id] >= self._settings.status_seconds
        try:
            seen = await observe_attempt(self._services, claim, ask_ray=ask_ray)
        except OSError as error:  # a full disk, for example: the next round may succeed
            await self._record_held_up(claim, error)
            return
        self._held_up.discard(claim.submission_id)
        if seen.answered:
            self._status_at[claim.submission_id] = time.monotonic()
        await self._apply(claim, seen)
        await self._report_pending(claim, seen)

    async def _report_pending(self, claim: Claim, seen: Observation) -> None:
        """Record what a driver waits for that Ray does not take or keeps pending: after a while, then at intervals."""
        message = _waiting(seen)
        if seen.submitted != claim.submitted or (message is None and seen.answered):
            self._pending.pop(claim.submission_id, None)
        if message is None:
            return
        at = time.monotonic()
        if at < self._pending.setdefault(claim.submission_id, at + PENDING_SECONDS):
            return
        self._pending[claim.submission_id] = at + PENDING_REPEAT_SECONDS
        logger.info("job %s is %s", claim.job_id, message)
        async with self._services.db.write() as session:
            job = await session.scalar(select(JobRow).where(JobRow.id == claim.job_id).with_for_update())
            if job is not None and (job.lease_token, job.attempt) == (claim.lease_token, claim.attempt):
                record(session, job, "attempt.pending", message, attempt=claim.attempt)
                show_waiting(job, message)

    async def _record_held_up(self, claim: Claim, error: OSError) -> None:
        """Record an event once per outage: the job's state does not show what it waits for."""
        if claim.submission_id in self._held_up:
            return
        logger.warning("job %s is held up: %s", claim.job_id, error)
        async with self._services.db.write() as session:
            job = await session.scalar(select(JobRow).where(JobRow.id == claim.job_id).with_for_update())
            if job is not None and (job.lease_token, job.attempt) == (claim.lease_token, claim.attempt):
                message = f"held up and retried every round: {error}"
                record(session, job, "attempt.held_up", message, attempt=claim.attempt)
        self._held_up.add(claim.submission_id)

    async def _claim(self) -> list[Claim]:
        """Lease the running jobs of this server, those whose lease expired, and the next in the queue if there is room."""
        async with self._services.db.read() as session:
            counted = select(JobRow.state, func.count()).where(JobRow.state.in_(ACTIVE)).group_by(JobRow.state)
            active = dict((await session.execute(counted)).all())
            may_start = JobState.QUEUED in active and await self._has_room(session)
        if not active:
            return []
        async with self._services.db.write() as session:
            if may_start:
                await self._start_next(session)
            return await self._lease(session, claimable(self._owner, self._cluster))

    async def _start_next(self, session: AsyncSession) -> None:
        """Begin the first attempts of queued jobs: the highest priority first, then the oldest.

        The trials of a search count as one job, as the search itself limits how many of them run. A search's first trial begins
        like any job; the others follow in the next round.
        """
        if session.get_bind().dialect.name == "postgresql":
            await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": START_LOCK})
        running = await _running(session)
        queue = select(JobRow).where(JobRow.state == JobState.QUEUED).options(raiseload(JobRow.stages))
        first = queue.order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id).with_for_update(skip_locked=True)
        starting = list(await session.scalars(first.where(JobRow.search_id.in_(running))))
        others = first.where(JobRow.search_id.is_(None) | JobRow.search_id.not_in(running))
        for job in await session.scalars(others.limit(max(0, self._settings.running_limit - len(running)))):
            if job.search_id is None or job.search_id not in {each.search_id for each in starting}:
                starting.append(job)
        for job in starting:
            if job.model_version is None:
                job.model_version = await models.reserve(session, job.project, job.model_name)
            begin_attempt(session, job, f"attempt {job.attempt + 1} is being started")
        await session.flush()

    async def _has_room(self, session: AsyncSession) -> bool:
        """Return whether a queued job may begin."""
        running = await _running(session)
        if len(running) < self._settings.running_limit:
            return True
        trials = select(JobRow.id).where(JobRow.state == JobState.QUEUED, JobRow.search_id.in_(running))
        return await session.scalar(trials.limit(1)) is not None

    async def _lease(self, session: AsyncSession, which: ColumnElement[bool]) -> list[Claim]:
        """Take or renew the leases of `which` jobs on the cluster. An attempt that has no cluster yet gets this server's."""
        at, seconds = now(), self._settings.lease_seconds
        of_job = (AttemptRow.job_id == JobRow.id) & (AttemptRow.number == JobRow.attempt)
        query = select(JobRow, AttemptRow).join(AttemptRow, of_job).where(JobRow.state.in_(ON_CLUSTER), which)
        found = await session.execute(query.options(raiseload(JobRow.stages)).with_for_update(of=JobRow, skip_locked=True))
        claims = []
        for job, attempt in found.all():
            if job.lease_owner != self._owner:
                job.lease_owner, job.lease_token = self._owner, job.lease_token + 1
            if job.lease_until is None or job.lease_until < at + timedelta(seconds=seconds / 2):
                job.lease_until = at + timedelta(seconds=seconds)
            attempt.cluster = self._cluster if attempt.cluster is None else attempt.cluster
            claims.append(Claim.of(job, attempt, self._cluster, await _seconds_on_cluster(session, job)))
        return claims

    async def _apply(self, claim: Claim, seen: Observation) -> None:
        """Write the observation to the database, if the lease still holds and the attempt is still the newest."""
        cleared = seen.answered and claim.unknown  # Ray has a record of the attempt again
        late = claim.time_is_up and seen.caught_up
        decided = seen.verdict is Verdict.UNKNOWN or cleared or late
        if not (seen.has_changes(submitted=claim.submitted) or seen.control or decided):
            return
        async with self._services.db.write() as session:
            job = await session.scalar(select(JobRow).where(JobRow.id == claim.job_id).with_for_update())
            if job is not None and job.lease_token != claim.lease_token:
                self._services.metrics.lease_losses.inc()
            if job is None or job.lease_token != claim.lease_token or job.attempt != claim.attempt:
                return
            attempt = await session.get_one(AttemptRow, (job.id, job.attempt))
            if attempt.next_segment != claim.next_segment or attempt.outcome is not None:
                return
            job.control = seen.control or job.control
            attempt.progressed_at = seen.progressed_at(attempt.progressed_at, submitted=attempt.submitted)
            if seen.submitted and not attempt.submitted:
                attempt.submitted = True
                message = f"submitted as Ray job {attempt.ray_submission_id}"
                record(session, job, "attempt.submitted", message, attempt=attempt.number)
                show_waiting(job, None)
            for events in seen.segments:
                for event in events:
                    await apply_event(session, job, attempt, event)
                attempt.next_segment += 1
            if attempt.outcome is None and late:
                time_out(session, job, attempt, claim.timeouts)
            elif attempt.outcome is None:
                judge(session, job, attempt, seen, self._settings.unknown_grace_seconds, claim.timeouts)


async def _running(session: AsyncSession) -> set[str]:
    """Return what runs on the cluster: ids of jobs, and for trials that of their search."""
    ids = select(func.coalesce(JobRow.search_id, JobRow.id)).where(JobRow.state.in_(ON_CLUSTER)).distinct()
    return set(await session.scalars(ids))


def _waiting(seen: Observation) -> str | None:
    """Return what a driver waits for that has not started; None if it has, or if that is not known."""
    if seen.not_taken is not None:
        return f"waiting for Ray to take the job: {seen.not_taken}"
    if seen.status is RayJobStatus.PENDING and seen.note is not None:
        return f"waiting for Ray to start the driver: {seen.note.message}"
    return None


async def _seconds_on_cluster(session: AsyncSession, job: JobRow) -> float:
    """Return the time that all attempts took; 0.0 for a job without a limit."""
    if timeouts_of(job).total_seconds is None:
        return 0.0
    query = select(AttemptRow.created_at, AttemptRow.finished_at).where(AttemptRow.job_id == job.id)
    attempts = (await session.execute(query)).all()
    return sum(((finished or now()) - created).total_seconds() for created, finished in attempts)
