"""Queries over jobs, their labels, events, log lines and metrics."""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import Base
from tinyclip_server.database.tables import EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow
from tinyclip_server.http.pagination import Rows, fitting_rows
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
) -> Rows[JobRow]:
    """Return the newest jobs in any of the states, with any of the names and all of the labels."""
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
    query = query.order_by(JobRow.created_at.desc(), JobRow.id.desc())
    return await fitting_rows(session, query, JobRow.spec, limit)


async def add(session: AsyncSession, job: JobRow, first: EventRow) -> None:
    """Insert a new job with its stages, labels and first event, in one statement a table.

    The job is not added to the session: later changes of it are not written.
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


async def active_retries(session: AsyncSession, job_id: str) -> Sequence[JobRow]:
    """Return the retries of a job that have not ended, newest first."""
    query = select(JobRow).where(JobRow.state.not_in(ENDED), JobRow.adopts.is_not(None)).order_by(JobRow.created_at.desc())
    return [retry for retry in await session.scalars(query) if job_id in (retry.adopts or ())]


async def adopted_by_active_retries(session: AsyncSession) -> set[str]:
    """Return the ids of jobs whose checkpoints an active retry continues from."""
    query = select(JobRow.adopts).where(JobRow.state.not_in(ENDED), JobRow.adopts.is_not(None))
    return {job_id for adopts in await session.scalars(query) for job_id in adopts or ()}


async def copy_metric_points(session: AsyncSession, source: str, target: str) -> None:
    columns = [MetricPointRow.name, MetricPointRow.stage, MetricPointRow.step, MetricPointRow.value]
    points = select(literal(target), *columns).where(MetricPointRow.job_id == source)
    await session.execute(insert(MetricPointRow).from_select(["job_id", *(column.key for column in columns)], points))
