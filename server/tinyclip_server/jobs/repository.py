"""Queries over jobs and what hangs on them."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import Base
from tinyclip_server.database.tables import EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow
from tinyclip_server.jobs.lifecycle import ENDED


async def find(session: AsyncSession, project: str, job_id: str, *, lock: bool = False) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == job_id, JobRow.project == project, JobRow.deleted_at.is_(None))
    return await session.scalar(query.with_for_update() if lock else query)


async def newest(
    session: AsyncSession,
    project: str,
    *,
    after: tuple[object, ...] | None,
    limit: int,
    states: Sequence[JobState] = (),
    names: Sequence[str] = (),
    labels: Iterable[tuple[str, str]] = (),
) -> Sequence[JobRow]:
    """Jobs in any of the states, of any of the names, with all of the labels."""
    query = select(JobRow).where(JobRow.project == project, JobRow.deleted_at.is_(None))
    if states:
        query = query.where(JobRow.state.in_(states))
    if names:
        query = query.where(JobRow.name.in_(names))
    for key, value in labels:
        query = query.where(
            select(JobLabelRow.job_id)
            .where(JobLabelRow.job_id == JobRow.id, JobLabelRow.key == key, JobLabelRow.value == value)
            .exists()
        )
    if after:
        query = query.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*after))
    query = query.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    return (await session.scalars(query)).all()


async def add(session: AsyncSession, job: JobRow, first: EventRow) -> None:
    """Write a new job with its stages, its labels and its first event, in plain statements: nothing of it was there before.

    The job stays outside the session; changes that follow are not written.
    """
    labels = [JobLabelRow(job_id=job.id, key=key, value=value) for key, value in job.labels.items()]
    for stage in job.stages:
        stage.job_id = job.id
    await session.run_sync(_insert, [[job], job.stages, labels, [first]])


def _insert(session: Session, tables: Sequence[Sequence[Base]]) -> None:
    connection = session.connection()
    for rows in filter(None, tables):
        table = Base.metadata.tables[rows[0].__tablename__]
        given = [{name: row.__dict__[name] for name in table.c.keys() if name in row.__dict__} for row in rows]  # noqa: SIM118
        connection.execute(insert(table), given)


async def set_labels(session: AsyncSession, job: JobRow, labels: dict[str, str]) -> None:
    job.labels = labels
    await session.execute(delete(JobLabelRow).where(JobLabelRow.job_id == job.id))
    session.add_all(JobLabelRow(job_id=job.id, key=key, value=value) for key, value in labels.items())


async def events_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[EventRow]:
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.seq > seq).order_by(EventRow.seq).limit(limit)
    return (await session.scalars(query)).all()


async def logs_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[LogLineRow]:
    query = select(LogLineRow).where(LogLineRow.job_id == job_id, LogLineRow.seq > seq).order_by(LogLineRow.seq).limit(limit)
    return (await session.scalars(query)).all()


async def living_heirs(session: AsyncSession, job_id: str) -> Sequence[JobRow]:
    """Jobs that have not ended and go on from a job's checkpoints, the newest first."""
    query = select(JobRow).where(JobRow.state.not_in(ENDED), JobRow.adopts.is_not(None)).order_by(JobRow.created_at.desc())
    return [heir for heir in await session.scalars(query) if job_id in (heir.adopts or ())]


async def adopted(session: AsyncSession) -> set[str]:
    """Jobs from whose checkpoints one goes on that has not ended."""
    query = select(JobRow.adopts).where(JobRow.state.not_in(ENDED), JobRow.adopts.is_not(None))
    return {job_id for adopts in await session.scalars(query) for job_id in adopts or ()}


async def copy_metric_points(session: AsyncSession, source: str, target: str) -> None:
    columns = [MetricPointRow.name, MetricPointRow.stage, MetricPointRow.step, MetricPointRow.value]
    of_source = select(literal(target), *columns).where(MetricPointRow.job_id == source)
    await session.execute(insert(MetricPointRow).from_select(["job_id", *(column.key for column in columns)], of_source))
