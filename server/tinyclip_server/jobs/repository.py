"""Queries over jobs, their labels, attempts, events, log lines and metrics. A search ends after a number of rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Session
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import Base
from tinyclip_server.database.tables import (
    AttemptRow,
    EventRow,
    JobLabelRow,
    JobRow,
    LogLineRow,
    MetricPointRow,
    SearchRow,
)
from tinyclip_server.http.pagination import Rows, fitting_rows
from tinyclip_server.jobs.lifecycle import ENDED

ACTIVE = tuple(state for state in JobState if state not in ENDED)
SEARCHED_JOBS = 10_000
"""Jobs that the search of one page looks at, from the newest on; the next page goes on from there."""
SEARCHED_LINES = 20_000
"""Log lines that the search of one page, or of a tail, looks at."""


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
    search: str = "",
    parent: str = "",
) -> Rows[JobRow]:
    """Return the newest jobs in any of the states, with any of the names and all of the labels, in which a text is found.

    `parent`: the search whose trials they are.
    """
    place, newest_first = tuple_(JobRow.created_at, JobRow.id), (JobRow.created_at.desc(), JobRow.id.desc())
    query = select(JobRow).where(JobRow.project == project, JobRow.deleted_at.is_(None)).order_by(*newest_first)
    if after:
        query = query.where(place < tuple_(*after))
    last = None
    if search:
        last = await _last_searched(session, query)
        query = query.where(_mentions(search), *([place >= tuple_(*last)] if last else []))
    if states:
        query = query.where(JobRow.state.in_(states))
    if names:
        query = query.where(JobRow.name.in_(names))
    if parent:
        query = query.where(JobRow.search_id == parent)
    for key, value in labels:
        query = query.where(
            select(JobLabelRow.job_id)
            .where(JobLabelRow.job_id == JobRow.id, JobLabelRow.key == key, JobLabelRow.value == value)
            .exists()
        )
    rows = await fitting_rows(session, query, JobRow.spec, limit)
    rows.searched_to = last if len(rows) < limit else None
    return rows


async def _last_searched(session: AsyncSession, query: Select[JobRow]) -> tuple[Any, ...] | None:
    """Return the key of the last job that one search looks at; None if it reaches the last of all."""
    keys = query.with_only_columns(JobRow.created_at, JobRow.id)
    row = (await session.execute(keys.offset(SEARCHED_JOBS - 1).limit(1))).one_or_none()
    return tuple(row) if row is not None else None


def _mentions(text: str) -> ColumnElement[bool]:
    """Select jobs whose name, id or value of a label contains a text."""
    in_label = select(JobLabelRow.job_id).where(JobLabelRow.job_id == JobRow.id, _contains(JobLabelRow.value, text)).exists()
    return or_(_contains(JobRow.name, text), _contains(JobRow.id, text), in_label)


def _contains(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Compare without case, as far as the database's locale knows the letters."""
    escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return func.lower(column).like(func.lower(f"%{escaped}%"), escape="/")


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


async def last_events(session: AsyncSession, job: JobRow, count: int) -> Sequence[EventRow]:
    return await events_after(session, job.id, max(0, job.last_event - count), count)


async def logs_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[LogLineRow]:
    query = select(LogLineRow).where(LogLineRow.job_id == job_id, LogLineRow.seq > seq).order_by(LogLineRow.seq).limit(limit)
    return (await session.scalars(query)).all()


@dataclass(frozen=True)
class LineFilter:
    """Which log lines are wanted: those of any of the levels in which a text is found."""

    search: str = ""
    levels: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.search or self.levels)

    def conditions(self) -> list[ColumnElement[bool]]:
        found = [_contains(LogLineRow.message, self.search)] if self.search else []
        return [*found, LogLineRow.level.in_(self.levels)] if self.levels else found

    def matches(self, line: LogLineRow) -> bool:
        return self.search.lower() in line.message.lower() and (not self.levels or line.level in self.levels)


async def matching_logs(session: AsyncSession, job: JobRow, seq: int, limit: int, wanted: LineFilter) -> Rows[LogLineRow]:
    """Return the first wanted lines after a number."""
    until = min(job.last_log, seq + SEARCHED_LINES) if wanted else job.last_log
    query = select(LogLineRow).where(LogLineRow.job_id == job.id, LogLineRow.seq > seq, LogLineRow.seq <= until)
    query = query.where(*wanted.conditions()).order_by(LogLineRow.seq).limit(limit)
    rows = Rows((await session.scalars(query)).all())
    rows.searched_to = (until,) if len(rows) < limit and until < job.last_log else None
    return rows


async def last_logs(session: AsyncSession, job: JobRow, count: int, wanted: LineFilter) -> Sequence[LogLineRow]:
    """Return the last wanted lines, as far back as a search looks."""
    query = select(LogLineRow).where(LogLineRow.job_id == job.id, LogLineRow.seq > job.last_log - SEARCHED_LINES)
    query = query.where(*wanted.conditions()).order_by(LogLineRow.seq.desc()).limit(count)
    return (await session.scalars(query)).all()[::-1]


async def points_after(session: AsyncSession, job_id: str, seq: int, limit: int) -> Sequence[MetricPointRow]:
    mine = (MetricPointRow.job_id == job_id, MetricPointRow.seq > seq)
    return (await session.scalars(select(MetricPointRow).where(*mine).order_by(MetricPointRow.seq).limit(limit))).all()


async def attempts_after(session: AsyncSession, job_id: str, number: int, limit: int) -> Sequence[AttemptRow]:
    mine = (AttemptRow.job_id == job_id, AttemptRow.number > number)
    return (await session.scalars(select(AttemptRow).where(*mine).order_by(AttemptRow.number).limit(limit))).all()


async def active_retries(session: AsyncSession, job_id: str) -> Sequence[JobRow]:
    """Return the retries of a job that have not ended, newest first."""
    query = select(JobRow).where(JobRow.state.in_(ACTIVE), JobRow.adopts.is_not(None)).order_by(JobRow.created_at.desc())
    return [retry for retry in await session.scalars(query) if job_id in (retry.adopts or ())]


async def adopted_by_active_retries(session: AsyncSession) -> set[str]:
    """Return the ids of jobs whose checkpoints an active retry continues from."""
    query = select(JobRow.adopts).where(JobRow.state.in_(ACTIVE), JobRow.adopts.is_not(None))
    return {job_id for adopts in await session.scalars(query) for job_id in adopts or ()}


async def active_searches(session: AsyncSession, jobs: Iterable[JobRow]) -> set[str]:
    """Return the ids of searches that have not ended of which some of these jobs are trials."""
    ids = {job.search_id for job in jobs if job.search_id is not None}
    query = select(SearchRow.id).where(SearchRow.id.in_(ids), SearchRow.state.in_(ACTIVE))
    return set(await session.scalars(query)) if ids else set()


async def copy_metric_points(session: AsyncSession, source: str, target: str) -> None:
    """Copy points with their numbers; the new job counts on from there."""
    columns = [MetricPointRow.name, MetricPointRow.stage, MetricPointRow.step, MetricPointRow.value, MetricPointRow.seq]
    points = select(literal(target), *columns).where(MetricPointRow.job_id == source)
    await session.execute(insert(MetricPointRow).from_select(["job_id", *(column.key for column in columns)], points))
