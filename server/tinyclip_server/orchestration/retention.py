"""What goes some days after a job's end: its checkpoints, its log, its history, and what Ray still remembers of its attempts.

Ray's other records, of evaluations and the like, go with them (`ray_records.py`).

Marks on the rows say how far it is. Files go before the mark that says so, so a round that is killed, or that two servers
make at once, is made again and finds less. Of a job whose attempt may still write somewhere nothing is touched.
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
from tinyclip_server.orchestration.ray_records import forget_others

logger = logging.getLogger(__name__)

AT_ONCE = 100

Mark = InstrumentedAttribute[datetime | None]


async def reconcile(services: Services) -> None:
    """One round: all that is due."""
    settings = services.settings
    await expire_checkpoints(services, settings.keep_checkpoints_days)
    await _remove_of_jobs(services, settings.keep_logs_days, JobRow.logs_removed_at, _remove_logs)
    await _remove_of_jobs(services, settings.keep_events_days, JobRow.events_removed_at, _remove_events)
    await forget_attempts(services, settings.keep_ray_jobs_days)
    if (begun := _before(settings.keep_ray_jobs_days)) is not None:
        await forget_others(services, begun)
    await remove_orphans(services, settings.keep_orphans_days)


async def expire_checkpoints(services: Services, days: float) -> None:
    """In two steps: from the first on no retry can begin that needs them, then they go."""
    begun = _before(days)
    if begun is None:
        return
    due = (JobRow.finished_at < begun, JobRow.checkpoints_expired_at.is_(None))
    async with services.db.read() as session:
        in_use = await repository.adopted_by_active_retries(session)
        found = (await session.scalars(select(JobRow.id).where(*_ended(), *due, JobRow.id.not_in(in_use)))).all()
    for job_id in found:
        async with services.db.write() as session:
            # The row is locked as a retry locks it: one of the two comes first, and the other sees it.
            await session.scalar(select(JobRow.id).where(JobRow.id == job_id).with_for_update())
            if not await repository.active_retries(session, job_id):
                await session.execute(update(JobRow).where(JobRow.id == job_id, *due).values(checkpoints_expired_at=now()))
    expired = (JobRow.checkpoints_expired_at.is_not(None), JobRow.checkpoints_removed_at.is_(None))
    await _remove(services, expired, JobRow.checkpoints_removed_at, _remove_checkpoints)


async def forget_attempts(services: Services, days: float) -> None:
    """Have Ray delete its records of attempts that are long over. What it wrote into the store stays."""
    begun = _before(days)
    if begun is None:
        return
    due = (AttemptRow.released_at < begun, AttemptRow.forgotten_at.is_(None))
    async with services.db.read() as session:
        found = (await session.scalars(select(AttemptRow).where(*due))).all()
    for attempt in found:
        try:
            await services.ray.delete_job(attempt.ray_submission_id)
        except RayUnavailable as error:
            logger.debug("%s is not forgotten yet: %s", attempt.ray_submission_id, error)
            return
        async with services.db.write() as session:
            mine = (AttemptRow.job_id == attempt.job_id, AttemptRow.number == attempt.number)
            await session.execute(update(AttemptRow).where(*mine).values(forgotten_at=now()))


async def remove_orphans(services: Services, days: float) -> None:
    """Folders of jobs that no row knows: of a database that was put back to an older state, or of a kill long ago.

    The store is listed before the database is asked: a row is committed before the first file of its folder is written.
    """
    begun = _before(days)
    if begun is None:
        return
    folders = [name for name in await services.store.list(JOBS) if is_job_folder(name)]
    for start in range(0, len(folders), AT_ONCE):
        some = folders[start : start + AT_ONCE]
        async with services.db.read() as session:
            known = set(await session.scalars(select(JobRow.id).where(JobRow.id.in_(some))))
        for name in [name for name in some if name not in known]:
            files = await services.store.find(job_folder(name))
            if files and max(file.modified_at for file in files) < begun:
                logger.warning("%s belongs to no job and has not changed for %g days: it is removed", job_folder(name), days)
                await services.store.remove(job_folder(name))


def _before(days: float) -> datetime | None:
    """The moment before which something must have ended to be due; null for a setting that means for ever."""
    try:
        return now() - timedelta(days=days)
    except OverflowError:
        return None


def _ended() -> tuple[ColumnElement[bool], ...]:
    """Jobs of which nobody writes any more; those that were deleted are not ours but the cleanup's."""
    may_write = exists().where(AttemptRow.job_id == JobRow.id, AttemptRow.released_at.is_(None))
    return JobRow.state.in_(ENDED), JobRow.deleted_at.is_(None), ~may_write


async def _remove_of_jobs(
    services: Services, days: float, mark: Mark, work: Callable[[Services, JobRow], Awaitable[None]]
) -> None:
    begun = _before(days)
    if begun is not None:
        await _remove(services, (JobRow.finished_at < begun, mark.is_(None)), mark, work)


async def _remove(
    services: Services, due: Sequence[ColumnElement[bool]], mark: Mark, work: Callable[[Services, JobRow], Awaitable[None]]
) -> None:
    """Do the work for every job that it is due for, and mark it; what cannot be done now is left to the next round."""
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
            logger.warning("what is due of job %s cannot be removed yet: %s", job_id, error)
            continue
        async with services.db.write() as session:
            await session.execute(update(JobRow).where(JobRow.id == job_id).values({mark: now()}))


async def _remove_checkpoints(services: Services, job: JobRow) -> None:
    """The finished students and the drawings of layouts stay."""
    for stage in await services.store.list(stages := stages_folder(job.id)):
        for name in await services.store.list(f"{stages}/{stage}"):
            if is_checkpoints_folder(name):
                await services.store.remove(f"{stages}/{stage}/{name}")


async def _remove_logs(services: Services, job: JobRow) -> None:
    """The lines, and the segments that they came in: those have been applied to the end."""
    for number in range(1, job.attempt + 1):
        await services.store.remove(attempt_events(job.id, number))
        await services.store.remove(attempt_logs(job.id, number))
    async with services.db.write() as session:
        await session.execute(delete(LogLineRow).where(LogLineRow.job_id == job.id))


async def _remove_events(services: Services, job: JobRow) -> None:
    async with services.db.write() as session:
        await session.execute(delete(EventRow).where(EventRow.job_id == job.id))
