"""Removes what has expired some days after a job's end: checkpoints, log, history, and Ray's records of its attempts.

Columns of the job record what was removed. Files are removed before the column is set, so a round that is killed, or that two
servers run at once, is repeated safely. Nothing is removed of a job whose attempt may still write.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.orm import InstrumentedAttribute
from tinyclip.artifacts.paths import (
    JOBS,
    attempt_events,
    attempt_logs,
    is_checkpoints_folder,
    is_job_folder,
    job_folder,
    stages_folder,
)

from tinyclip_server.backends.ray_gateway import RayUnavailable
from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import AttemptRow, EventRow, JobRow, LogLineRow
from tinyclip_server.http.services import Services
from tinyclip_server.jobs import repository
from tinyclip_server.jobs.lifecycle import ENDED
from tinyclip_server.orchestration.followers import datasets
from tinyclip_server.orchestration.ray_records import delete_old_records

logger = logging.getLogger(__name__)

BATCH_SIZE = 100

Mark = InstrumentedAttribute[datetime | None]


async def reconcile(services: Services) -> None:
    """Run one round: remove everything that has expired."""
    settings = services.settings
    await expire_checkpoints(services, settings.keep_checkpoints_days)
    await _remove_of_jobs(services, settings.keep_logs_days, JobRow.logs_removed_at, _remove_logs)
    await _remove_of_jobs(services, settings.keep_events_days, JobRow.events_removed_at, _remove_events)
    await delete_attempt_records(services, settings.keep_ray_jobs_days)
    if (limit := _before(settings.keep_ray_jobs_days)) is not None:
        await delete_old_records(services, limit)
    await remove_orphans(services, settings.keep_orphans_days)
    if (limit := _before(settings.keep_orphans_days)) is not None:
        await datasets.remove_orphans(services, limit)


async def expire_checkpoints(services: Services, days: float) -> None:
    """Mark them as expired, so that no retry begins that needs them, then remove them."""
    limit = _before(days)
    if limit is None:
        return
    due = (JobRow.finished_at < limit, JobRow.checkpoints_expired_at.is_(None))
    async with services.db.read() as session:
        in_use = await repository.adopted_by_active_retries(session)
        found = (await session.scalars(select(JobRow.id).where(*_ended(), *due, JobRow.id.not_in(in_use)))).all()
    for job_id in found:
        async with services.db.write() as session:
            # A retry locks the same row: one of the two is first, and the other sees it.
            await session.scalar(select(JobRow.id).where(JobRow.id == job_id).with_for_update())
            if not await repository.active_retries(session, job_id):
                await session.execute(update(JobRow).where(JobRow.id == job_id, *due).values(checkpoints_expired_at=now()))
    expired = (JobRow.checkpoints_expired_at.is_not(None), JobRow.checkpoints_removed_at.is_(None))
    await _remove(services, expired, JobRow.checkpoints_removed_at, _remove_checkpoints)


async def delete_attempt_records(services: Services, days: float) -> None:
    """Have Ray delete its records of old attempts. Their files in the store stay."""
    limit = _before(days)
    if limit is None:
        return
    due = (AttemptRow.released_at < limit, AttemptRow.forgotten_at.is_(None))
    async with services.db.read() as session:
        found = (await session.scalars(select(AttemptRow).where(*due))).all()
    for attempt in found:
        try:
            await services.ray.delete_job(attempt.ray_submission_id)
        except RayUnavailable as error:
            logger.debug("Ray's record of %s is kept for now: %s", attempt.ray_submission_id, error)
            return
        async with services.db.write() as session:
            mine = (AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
            await session.execute(update(AttemptRow).where(*mine).values(forgotten_at=now()))


async def remove_orphans(services: Services, days: float) -> None:
    """Remove folders of jobs without a row, left by a database that was restored from a backup, or by a kill.

    The store is listed before the database is queried: a row is committed before the first file of its folder is written.
    """
    limit = _before(days)
    if limit is None:
        return
    folders = [name for name in await services.store.list(JOBS) if is_job_folder(name)]
    for start in range(0, len(folders), BATCH_SIZE):
        some = folders[start : start + BATCH_SIZE]
        async with services.db.read() as session:
            known = set(await session.scalars(select(JobRow.id).where(JobRow.id.in_(some))))
        for name in [name for name in some if name not in known]:
            files = await services.store.find(job_folder(name))
            if files and max(file.modified_at for file in files) < limit:
                logger.warning("removing %s: it belongs to no job and has not changed for %g days", job_folder(name), days)
                await services.store.remove(job_folder(name))


def _before(days: float) -> datetime | None:
    """Return the moment before which something must have ended to be expired; None if it never expires."""
    try:
        return now() - timedelta(days=days)
    except OverflowError:
        return None


def _ended() -> tuple[ColumnElement[bool], ...]:
    """Select jobs that no attempt can write to any more; deleted jobs are left to `jobs/cleanup.py`."""
    may_write = exists().where(AttemptRow.job_id == JobRow.id, AttemptRow.released_at.is_(None))
    return JobRow.state.in_(ENDED), JobRow.deleted_at.is_(None), ~may_write


async def _remove_of_jobs(
    services: Services, days: float, mark: Mark, work: Callable[[Services, JobRow], Awaitable[None]]
) -> None:
    limit = _before(days)
    if limit is not None:
        await _remove(services, (JobRow.finished_at < limit, mark.is_(None)), mark, work)


async def _remove(
    services: Services, due: Sequence[ColumnElement[bool]], mark: Mark, work: Callable[[Services, JobRow], Awaitable[None]]
) -> None:
    """Do the work for every job that it is due for, and mark it; a failure is left to the next round."""
    async with services.db.read() as session:
        found = (await session.scalars(select(JobRow.id).where(*_ended(), *due))).all()
    for job_id in found:
        async with services.db.read() as session:
            job = await session.get(JobRow, job_id)
        if job is None:
            continue
        try:
            await work(services, job)
        except OSError as error:
            logger.warning("expired files of job %s cannot be removed yet: %s", job_id, error)
            continue
        async with services.db.write() as session:
            await session.execute(update(JobRow).where(JobRow.id == job_id).values({mark: now()}))


async def _remove_checkpoints(services: Services, job: JobRow) -> None:
    """Keep the finished students and the drawings of layouts."""
    for stage in await services.store.list(stages := stages_folder(job.id)):
        for name in await services.store.list(f"{stages}/{stage}"):
            if is_checkpoints_folder(name):
                await services.store.remove(f"{stages}/{stage}/{name}")


async def _remove_logs(services: Services, job: JobRow) -> None:
    """Remove the lines, and the event segments that they came in, all of which have been applied."""
    for number in range(1, job.attempt + 1):
        await services.store.remove(attempt_events(job.id, number))
        await services.store.remove(attempt_logs(job.id, number))
    async with services.db.write() as session:
        await session.execute(delete(LogLineRow).where(LogLineRow.job_id == job.id))


async def _remove_events(services: Services, job: JobRow) -> None:
    async with services.db.write() as session:
        await session.execute(delete(EventRow).where(EventRow.job_id == job.id))
