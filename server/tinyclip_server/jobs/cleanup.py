"""What is left when a job or an attempt is over: processes that may still run somewhere, and files of deleted jobs.

It comes round for as long as the server lives, and every step of it can be repeated: killed anywhere, the next round goes on.
"""

import logging
from datetime import timedelta

from sqlalchemy import exists, select, update
from sqlalchemy.orm import raiseload
from tinyclip.artifacts.documents import Control
from tinyclip.artifacts.paths import job_control, job_folder
from tinyclip.schemas import JobState

from tinyclip_server.backends.ray_gateway import RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, JobRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs.lifecycle import AttemptOutcome

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 100
UNTOLD = tuple(outcome for outcome in AttemptOutcome if not outcome.told)


async def reconcile(services: Services) -> None:
    """One round."""
    await release_attempts(services)
    await remove_deleted(services)


async def release_attempts(services: Services) -> None:
    """Follow attempts that are over to the end of their processes, stopping what does not leave by itself."""
    async with services.db.read() as session:
        unreleased = (AttemptRow.outcome.is_not(None), AttemptRow.released_at.is_(None))
        found = (await session.scalars(select(AttemptRow).where(*unreleased).limit(MOST_AT_ONCE))).all()
        if not found:
            return
        of_them = select(JobRow).where(JobRow.id.in_({attempt.job_id for attempt in found})).options(raiseload(JobRow.stages))
        jobs = {job.id: job for job in await session.scalars(of_them)}
    for attempt in found:
        await _fence(services, jobs[attempt.job_id], attempt)
        try:
            gone = await _is_gone(services, attempt)
        except RayUnavailable as error:
            logger.debug("%s: %s", attempt.ray_submission_id, error)
            return
        if gone:
            async with services.db.write() as session:
                mine = (AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
                await session.execute(update(AttemptRow).where(*mine).values(released_at=now()))


async def _fence(services: Services, job: JobRow, attempt: AttemptRow) -> None:
    """No attempt follows the last one of a job, so nothing else tells the lost ones that it is over."""
    if attempt.outcome in UNTOLD and JobState(job.state).terminal:
        control = Control(fence=job.attempt + 1, desired="cancel").model_dump_json().encode()
        if await services.store.read_if_exists(job_control(job.id)) != control:
            await services.store.write_bytes(job_control(job.id), control)


async def _is_gone(services: Services, attempt: AttemptRow) -> bool:
    """Whether Ray has nothing of it. Unknown to Ray is gone only after a grace: a head that was away may remember."""
    assert attempt.finished_at is not None
    over_for = now() - attempt.finished_at
    status = await services.ray.job_status(attempt.ray_submission_id)
    if status is None:
        return over_for >= timedelta(seconds=services.settings.unknown_grace_seconds)
    if not status.ended and over_for >= timedelta(seconds=services.settings.stop_grace_seconds):
        await services.ray.stop_job(attempt.ray_submission_id)
    return status.ended


async def remove_deleted(services: Services) -> None:
    """Files first, rows last. A job of which a lost attempt may still write waits until that is released."""
    may_write = exists().where(
        AttemptRow.job_id == JobRow.id, AttemptRow.outcome.in_(UNTOLD), AttemptRow.released_at.is_(None)
    )
    async with services.db.read() as session:
        query = select(JobRow.id).where(JobRow.deleted_at.is_not(None), ~may_write).limit(MOST_AT_ONCE)
        found = (await session.scalars(query)).all()
    for job_id in found:
        try:
            await services.store.remove(job_folder(job_id))
        except OSError as error:
            logger.warning("the artifacts of deleted job %s cannot be removed yet: %s", job_id, error)
            continue
        async with services.db.write() as session:
            job = await session.get(JobRow, job_id)
            if job is not None:  # another server may have been quicker
                await session.delete(job)
