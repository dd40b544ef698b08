"""Cleanup after jobs and attempts: processes that may still run, and the files of deleted jobs.

Every step can be repeated, so a round that is killed at any point is completed by the next one.
"""

import logging
from datetime import timedelta

from sqlalchemy import exists, select, tuple_, update
from sqlalchemy.orm import raiseload
from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import job_control, job_folder
from tinyclip.schemas import JobState

from tinyclip_server.backends.ray_gateway import RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs.lifecycle import ABANDONED_SECONDS, AttemptOutcome

logger = logging.getLogger(__name__)

BATCH_SIZE = 100
NOT_SELF_REPORTED = tuple(outcome for outcome in AttemptOutcome if not outcome.self_reported)


async def reconcile(services: Services) -> None:
    """Run one round."""
    await release_attempts(services)
    await remove_deleted(services)


async def release_attempts(services: Services) -> None:
    """Mark ended attempts as released once their processes have ended, stopping those that do not exit.

    All are visited, in batches: one that cannot be released does not hold up those after it.
    """
    order = tuple_(AttemptRow.job_id, AttemptRow.number)
    last: tuple[str, int] = ("", 0)
    while True:
        async with services.db.read() as session:
            unreleased = (AttemptRow.outcome.is_not(None), AttemptRow.released_at.is_(None), order > last)
            query = select(AttemptRow).where(*unreleased).order_by(AttemptRow.job_id, AttemptRow.number)
            found = (await session.scalars(query.limit(BATCH_SIZE))).all()
            owners = select(JobRow).where(JobRow.id.in_({attempt.job_id for attempt in found})).options(raiseload(JobRow.stages))
            jobs = {job.id: job for job in await session.scalars(owners)} if found else {}
        for attempt in found:
            try:
                await _release(services, jobs[attempt.job_id], attempt)
            except RayUnavailable as error:
                logger.debug("%s: %s", attempt.ray_submission_id, error)
                return
            except OSError as error:
                logger.warning("attempt %s cannot be released yet: %s", attempt.ray_submission_id, error)
        if len(found) < BATCH_SIZE:
            return
        last = (found[-1].job_id, found[-1].number)


async def _release(services: Services, job: JobRow, attempt: AttemptRow) -> None:
    """Mark an attempt as released if it has ended. Raises RayUnavailable, OSError."""
    await _fence(services, job, attempt)
    if await _has_ended(services, attempt):
        async with services.db.write() as session:
            this_one = (AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
            await session.execute(update(AttemptRow).where(*this_one).values(released_at=now()))


async def _fence(services: Services, job: JobRow, attempt: AttemptRow) -> None:
    """Raise the fence above a lost attempt of an ended job: no later attempt does."""
    if attempt.outcome in NOT_SELF_REPORTED and JobState(job.state).terminal:
        control = Control(fence=job.attempt + 1, desired="cancel").model_dump_json().encode()
        if await services.store.read_if_exists(job_control(job.id)) != control:
            await services.store.write_bytes(job_control(job.id), control)


async def _has_ended(services: Services, attempt: AttemptRow) -> bool:
    """Return whether an attempt's Ray job has ended, or has been unknown to Ray for longer than the grace period."""
    assert attempt.finished_at is not None
    elapsed = now() - attempt.finished_at
    if attempt.cluster not in (None, services.settings.cluster):  # left to its own cluster's servers, if there are any
        return elapsed >= timedelta(seconds=ABANDONED_SECONDS)
    status = await services.ray.job_status(attempt.ray_submission_id)
    if status is None:
        return elapsed >= timedelta(seconds=services.settings.unknown_grace_seconds)
    if not status.ended and elapsed >= timedelta(seconds=services.settings.stop_grace_seconds):
        await services.ray.stop_job(attempt.ray_submission_id)
    return status.ended


async def remove_deleted(services: Services) -> None:
    """Remove the files and then the rows of deleted jobs, except those with a lost attempt that may still write."""
    may_write = exists().where(
        AttemptRow.job_id == JobRow.id, AttemptRow.outcome.in_(NOT_SELF_REPORTED), AttemptRow.released_at.is_(None)
    )
    last = ""
    while True:
        async with services.db.read() as session:
            deleted = (JobRow.deleted_at.is_not(None), ~may_write, JobRow.id > last)
            found = (await session.scalars(select(JobRow.id).where(*deleted).order_by(JobRow.id).limit(BATCH_SIZE))).all()
        for job_id in found:
            await _remove_job(services, job_id)
        if len(found) < BATCH_SIZE:
            return
        last = found[-1]


async def _remove_job(services: Services, job_id: str) -> None:
    try:
        await services.store.remove(job_folder(job_id))
    except OSError as error:
        logger.warning("the artifacts of deleted job %s cannot be removed yet: %s", job_id, error)
        return
    async with services.db.write() as session:
        job = await session.get(JobRow, job_id)
        if job is not None:  # unless another server has deleted it
            await session.delete(job)
