"""Queries over jobs and what hangs on them."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobState

from tinyclip_server.tables import EventRow, JobLabelRow, JobRow, LogLineRow, MetricPointRow


async def find(session: AsyncSession, project: str, job_id: str, *, lock: bool = False) -> JobRow | None:
    query = select(JobRow).where(JobRow.id == job_id, JobRow.project == project)
    return await session.scalar(query.with_for_update() if lock else query)


async def newest(
    session: AsyncSession,
    project: str,
    *,
    after: tuple[object, ...] | None,
    limit: int,
    state: JobState | None,
    name: str | None,
    labels: Iterable[tuple[str, str]],
) -> Sequence[JobRow]:
    query = select(JobRow).where(JobRow.project == project)
    if state:
        query = query.where(JobRow.state == state)
    if name:
        query = query.where(JobRow.name == name)
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


async def checkpoint_events(session: AsyncSession, job_id: str) -> Sequence[EventRow]:
    query = select(EventRow).where(EventRow.job_id == job_id, EventRow.type == "checkpoint").order_by(EventRow.seq)
    return (await session.scalars(query)).all()


async def metric_points(
    session: AsyncSession, job_id: str, names: Sequence[str], stage: int | None, max_points: int
) -> Sequence[MetricPointRow]:
    """Points by name, stage and step, thinned in the database: every nth point of each series, the last one always."""
    wanted: list[ColumnElement[bool]] = [MetricPointRow.job_id == job_id]
    if names:
        wanted.append(MetricPointRow.name.in_(names))
    if stage is not None:
        wanted.append(MetricPointRow.stage == stage)
    series = (MetricPointRow.name, MetricPointRow.stage)
    numbered = (
        select(
            MetricPointRow,
            func.row_number().over(partition_by=series, order_by=MetricPointRow.step.desc()).label("from_end"),
            func.count().over(partition_by=series).label("size"),
        )
        .where(*wanted)
        .subquery()
    )
    stride = (numbered.c.size + max_points - 1) // max_points
    query = (
        select(MetricPointRow)
        .join(
            numbered,
            (MetricPointRow.job_id == numbered.c.job_id)
            & (MetricPointRow.name == numbered.c.name)
            & (MetricPointRow.stage == numbered.c.stage)
            & (MetricPointRow.step == numbered.c.step),
        )
        .where((numbered.c.from_end - 1) % stride == 0)
        .order_by(MetricPointRow.name, MetricPointRow.stage, MetricPointRow.step)
    )
    return (await session.scalars(query)).all()
