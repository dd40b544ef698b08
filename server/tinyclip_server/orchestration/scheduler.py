"""Follows every job from the queue to its end, in three breaths: claim, observe, apply.

Claim and apply are short transactions; the slow work between them, with files and Ray, holds none. What was seen counts
only if the lease is still ours when it is applied. Killed at any point, the next round sees the same and does the same.
"""

import asyncio
import logging
import secrets
import time
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import func, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import raiseload
from structlog.contextvars import bind_contextvars
from tinyclip.schemas import JobError, JobState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs.intake import apply_event
from tinyclip_server.jobs.lifecycle import (
    ON_CLUSTER,
    AttemptOutcome,
    attempt_failed,
    attempt_stopped,
    begin_attempt,
    cluster_stopped,
    end_attempt,
    record,
)
from tinyclip_server.models import service as models
from tinyclip_server.orchestration.attempts import Claim, Observation, observe, read_segments

logger = logging.getLogger(__name__)

START_LOCK = 7_201_322
"""PostgreSQL's lock under which one scheduler at a time counts the running jobs and starts the next."""


class Scheduler:
    """One a server; several servers share the jobs by leases."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._settings = services.settings
        self._owner = secrets.token_hex(8)
        self._asked_at: dict[str, float] = {}
        self._held_up: set[str] = set()
        """Submission ids of the attempts whose files we could not write when last we tried."""

    async def tick(self) -> None:
        """One round over all jobs that want something."""
        claims = await self._claim()
        self._asked_at = {claim.submission_id: self._asked_at.get(claim.submission_id, 0.0) for claim in claims}
        done = await asyncio.gather(*(self._follow(claim) for claim in claims), return_exceptions=True)
        for claim, failure in zip(claims, done, strict=True):
            if isinstance(failure, Exception):
                logger.error("job %s: this round failed", claim.job_id, exc_info=failure)

    async def release(self) -> None:
        """Let go of our jobs, so that another server need not wait until the leases run out."""
        async with self._services.db.write() as session:
            ours = update(JobRow).where(JobRow.lease_owner == self._owner)
            await session.execute(ours.values(lease_owner="", lease_until=None))

    async def settle(self) -> None:
        """With the cluster gone, end its attempts: first by what they still told, else by queueing their jobs again."""
        async with self._services.db.write() as session:
            claims = await self._lease(session, all_jobs=True)
        for claim in claims:
            caught_up = False
            while not caught_up:
                seen = await read_segments(self._services, claim)
                await self._apply(claim, seen)
                caught_up = seen.caught_up
                claim = replace(claim, next_segment=claim.next_segment + len(seen.segments))
            await self._interrupt(claim)

    async def _interrupt(self, claim: Claim) -> None:
        async with self._services.db.write() as session:
            job = await session.get_one(JobRow, claim.job_id)
            attempt = await session.get_one(AttemptRow, (claim.job_id, claim.attempt))
            if attempt.outcome is None:
                end_attempt(attempt, AttemptOutcome.INTERRUPTED)
                record(session, job, "attempt.interrupted", "its cluster was stopped", attempt=attempt.number)
                cluster_stopped(session, job)
            elif job.state in ON_CLUSTER:  # a retry that has not been submitted anywhere
                fresh = await session.get_one(AttemptRow, (job.id, job.attempt))
                end_attempt(fresh, AttemptOutcome.INTERRUPTED)
                cluster_stopped(session, job)

    async def _follow(self, claim: Claim) -> None:
        bind_contextvars(job_id=claim.job_id, attempt=claim.attempt)  # each claim is followed in a task of its own
        ask_ray = time.monotonic() - self._asked_at[claim.submission_id] >= self._settings.status_seconds
        try:
            seen = await observe(self._services, claim, ask_ray=ask_ray)
        except OSError as error:  # a full disk, say: what is in the way may go
            await self._tell_held_up(claim, error)
            return
        self._held_up.discard(claim.submission_id)
        if seen.asked:
            self._asked_at[claim.submission_id] = time.monotonic()
        await self._apply(claim, seen)

    async def _tell_held_up(self, claim: Claim, error: OSError) -> None:
        """Once an outage: the job's state does not show what it waits for, its history does."""
        if claim.submission_id in self._held_up:
            return
        logger.warning("job %s is held up: %s", claim.job_id, error)
        async with self._services.db.write() as session:
            job = await session.scalar(select(JobRow).where(JobRow.id == claim.job_id).with_for_update())
            if job is not None and (job.lease_token, job.attempt) == (claim.lease_token, claim.attempt):
                message = f"held up, tried again all the time: {error}"
                record(session, job, "attempt.held_up", message, attempt=claim.attempt)
        self._held_up.add(claim.submission_id)

    async def _claim(self) -> list[Claim]:
        """Our running jobs, those whose lease ran out, and the next in the queue if there is room."""
        async with self._services.db.read() as session:
            counted = select(JobRow.state, func.count()).where(JobRow.state.in_(_ALIVE)).group_by(JobRow.state)
            alive = dict((await session.execute(counted)).all())
        if not alive:
            return []
        async with self._services.db.write() as session:
            room = self._settings.running_limit - sum(count for state, count in alive.items() if state in ON_CLUSTER)
            if room > 0 and JobState.QUEUED in alive:
                await self._start_next(session)
            return await self._lease(session)

    async def _start_next(self, session: AsyncSession) -> None:
        """Highest priority first, then the oldest."""
        if session.get_bind().dialect.name == "postgresql":
            await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": START_LOCK})
        running = await session.scalar(select(func.count()).select_from(JobRow).where(JobRow.state.in_(ON_CLUSTER)))
        queue = select(JobRow).where(JobRow.state == JobState.QUEUED).options(raiseload(JobRow.stages))
        first = queue.order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id).with_for_update(skip_locked=True)
        for job in await session.scalars(first.limit(max(0, self._settings.running_limit - (running or 0)))):
            if job.model_version is None:
                job.model_version = await models.reserve(session, job.project, job.model_name)
            begin_attempt(session, job, f"attempt {job.attempt + 1} is being started")
        await session.flush()

    async def _lease(self, session: AsyncSession, *, all_jobs: bool = False) -> list[Claim]:
        at, until = now(), now() + timedelta(seconds=self._settings.lease_seconds)
        free = (JobRow.lease_owner == self._owner) | JobRow.lease_until.is_(None) | (JobRow.lease_until < at)
        query = select(JobRow).where(JobRow.state.in_(ON_CLUSTER), true() if all_jobs else free)
        claims = []
        for job in await session.scalars(query.options(raiseload(JobRow.stages)).with_for_update(skip_locked=True)):
            if job.lease_owner != self._owner:
                job.lease_owner, job.lease_token = self._owner, job.lease_token + 1
            if job.lease_until is None or job.lease_until < at + timedelta(seconds=self._settings.lease_seconds / 2):
                job.lease_until = until
            attempt = await session.get_one(AttemptRow, (job.id, job.attempt))
            claims.append(_claim_of(job, attempt))
        return claims

    async def _apply(self, claim: Claim, seen: Observation) -> None:
        """Write down what was seen, if the lease is still ours and the attempt still the newest."""
        if not seen.says_something(claim):
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
            job.control = seen.control
            if seen.submitted and not attempt.submitted:
                attempt.submitted = True
                message = f"submitted as Ray job {attempt.ray_submission_id}"
                record(session, job, "attempt.submitted", message, attempt=attempt.number)
            for events in seen.segments:
                for event in events:
                    await apply_event(session, job, attempt, event)
                attempt.next_segment += 1
            if attempt.outcome is None:
                self._judge(session, job, attempt, seen)

    def _judge(self, session: AsyncSession, job: JobRow, attempt: AttemptRow, seen: Observation) -> None:
        """What Ray's word means for an attempt that has not said its last."""
        if seen.refused is not None:
            end_attempt(attempt, AttemptOutcome.FAILED)
            message = f"Ray refused the job: {seen.refused}"
            attempt_failed(session, job, JobError(code="ray_refused", message=message, attempt=attempt.number))
            return
        if not seen.asked or not seen.caught_up:
            return
        attempt.ray_status = seen.status.value if seen.status else None
        if seen.status is None and not attempt.submitted:  # asked to stop before it was ever started
            end_attempt(attempt, AttemptOutcome.WITHDRAWN)
            attempt_stopped(session, job)
        elif seen.status is None:
            self._judge_unknown(session, job, attempt)
        elif seen.status.ended:
            self._lose(session, job, attempt, f"its driver ended without a last word (Ray says {seen.status.value})")
        else:
            attempt.unknown_since = None

    def _judge_unknown(self, session: AsyncSession, job: JobRow, attempt: AttemptRow) -> None:
        """Ray does not know the attempt: its head may have lost its records. Wait, then go on under a new fence."""
        if attempt.unknown_since is None:
            attempt.unknown_since = now()
            record(session, job, "attempt.unknown", "Ray does not know the attempt", attempt=attempt.number)
        elif now() - attempt.unknown_since >= timedelta(seconds=self._settings.unknown_grace_seconds):
            self._lose(session, job, attempt, "Ray no longer knows it")

    def _lose(self, session: AsyncSession, job: JobRow, attempt: AttemptRow, why: str) -> None:
        end_attempt(attempt, AttemptOutcome.LOST)
        error = JobError(
            code="attempt_lost", message=f"attempt {attempt.number} is lost: {why}", stage=job.progress.get("stage"),
            attempt=attempt.number, retryable=True,
        )
        record(session, job, "attempt.lost", error.message, attempt=attempt.number)
        attempt_failed(session, job, error)


_ALIVE = (JobState.QUEUED, *ON_CLUSTER)


def _claim_of(job: JobRow, attempt: AttemptRow) -> Claim:
    return Claim(
        job_id=job.id,
        lease_token=job.lease_token,
        state=JobState(job.state),
        attempt=job.attempt,
        submission_id=attempt.ray_submission_id,
        submitted=attempt.submitted,
        next_segment=attempt.next_segment,
        control=job.control,
        document={
            "job": job.id, "name": job.name, "spec": job.resolved_spec, "model_name": job.model_name,
            "model_version": job.model_version, "adopts": job.adopts or [],
        },
        stop_requested_at=job.stop_requested_at,
        lease_until=job.lease_until or now(),
        unknown=attempt.unknown_since is not None,
    )
