"""Queries over searches, their trials, events and measurements."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import now
from tinyclip_server.database.tables import (
    AttemptRow,
    JobRow,
    MeasurementRow,
    ModelVersionRow,
    SearchEventRow,
    SearchRow,
    TrialRow,
)
from tinyclip_server.http.pagination import Rows, fitting_rows
from tinyclip_server.jobs.lifecycle import ENDED

CHUNK = 500
"""Ids of one statement; SQLite limits its parameters."""


class JobOfTrial(NamedTuple):
    """The fields of a trial's job that its search needs."""

    id: str
    state: JobState
    resources: Mapping[str, Any]
    model: tuple[str, int] | None
    error: str


async def find(session: AsyncSession, project: str, id: str, *, lock: bool = False) -> SearchRow | None:
    query = select(SearchRow).where(SearchRow.id == id, SearchRow.project == project, SearchRow.deleted_at.is_(None))
    return await session.scalar(query.with_for_update() if lock else query)


async def newest(
    session: AsyncSession, project: str, *, after: tuple[datetime, str] | None, limit: int, states: Sequence[JobState] = ()
) -> Rows[SearchRow]:
    query = select(SearchRow).where(SearchRow.project == project, SearchRow.deleted_at.is_(None))
    if states:
        query = query.where(SearchRow.state.in_(states))
    if after is not None:
        query = query.where(tuple_(SearchRow.created_at, SearchRow.id) < tuple_(*after))
    return await fitting_rows(session, query.order_by(SearchRow.created_at.desc(), SearchRow.id.desc()), SearchRow.post, limit)


async def events_after(session: AsyncSession, id: str, seq: int, limit: int) -> Sequence[SearchEventRow]:
    mine = (SearchEventRow.search_id == id, SearchEventRow.seq > seq)
    return (await session.scalars(select(SearchEventRow).where(*mine).order_by(SearchEventRow.seq).limit(limit))).all()


async def trials(session: AsyncSession, id: str) -> Sequence[TrialRow]:
    """Return a search's trials in the order of their numbers."""
    return (await session.scalars(select(TrialRow).where(TrialRow.search_id == id).order_by(TrialRow.number))).all()


async def count_trials(session: AsyncSession, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return how many trials of each search have begun, and how many of them have ended."""
    ended = func.count(TrialRow.outcome)
    query = select(TrialRow.search_id, func.count(), ended).where(TrialRow.search_id.in_(ids)).group_by(TrialRow.search_id)
    return {id: (begun, done) for id, begun, done in await session.execute(query)}


async def has_ended_trials(session: AsyncSession, id: str) -> bool:
    """Return whether the job of a trial has ended, or is gone, and the trial's outcome is not stored yet."""
    query = select(TrialRow.number).outerjoin(JobRow, JobRow.id == TrialRow.job_id)
    ended = JobRow.id.is_(None) | JobRow.state.in_(ENDED)
    return await session.scalar(query.where(TrialRow.search_id == id, TrialRow.outcome.is_(None), ended).limit(1)) is not None


async def jobs(session: AsyncSession, id: str) -> dict[str, JobOfTrial]:
    """Return the jobs of a search's trials by id, without their specs."""
    columns = (JobRow.id, JobRow.state, JobRow.resolved_spec["resources"], JobRow.model_name, JobRow.model_version)
    found = await session.execute(select(*columns, JobRow.error).where(JobRow.search_id == id))
    return {
        job: JobOfTrial(
            job, JobState(state), resources,
            (name, version) if state == JobState.SUCCEEDED and version is not None else None,
            str((error or {}).get("message", "")),
        )
        for job, state, resources, name, version, error in found
    }


async def locked_jobs(session: AsyncSession, id: str) -> Sequence[JobRow]:
    """Lock the jobs of a search's trials."""
    query = select(JobRow).where(JobRow.search_id == id, JobRow.deleted_at.is_(None)).order_by(JobRow.id).with_for_update()
    return (await session.scalars(query)).all()


async def seconds_on_cluster(session: AsyncSession, job_ids: Sequence[str]) -> dict[str, float]:
    """Return the time that all attempts at each job took so far, by the job's id."""
    seconds: dict[str, float] = {}
    for start in range(0, len(job_ids), CHUNK):
        columns = (AttemptRow.job_id, AttemptRow.created_at, AttemptRow.finished_at)
        query = select(*columns).where(AttemptRow.job_id.in_(job_ids[start : start + CHUNK]))
        for job, created, finished in await session.execute(query):
            seconds[job] = seconds.get(job, 0.0) + ((finished or now()) - created).total_seconds()
    return seconds


async def model_documents(session: AsyncSession, versions: Mapping[str, tuple[str, int]]) -> dict[str, ModelVersionRow]:
    """Return versions by the same keys, without those that are not registered."""
    found = {key: await session.get(ModelVersionRow, version) for key, version in versions.items()}
    return {key: row for key, row in found.items() if row is not None}


async def measurements(session: AsyncSession, id: str, *, lock: bool = False) -> Sequence[MeasurementRow]:
    """Return a search's own Ray jobs."""
    query = select(MeasurementRow).where(MeasurementRow.search_id == id).order_by(MeasurementRow.kind)
    return (await session.scalars(query.with_for_update() if lock else query)).all()


async def forget_jobs(session: AsyncSession, id: str) -> None:
    """Let the jobs of a search be jobs of their own."""
    await session.execute(update(JobRow).where(JobRow.search_id == id).values(search_id=None, trial=None))
