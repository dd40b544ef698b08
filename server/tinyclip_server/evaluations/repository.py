"""Queries over evaluations."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import EvaluationState

from tinyclip_server.database.tables import EvaluationRow
from tinyclip_server.http.pagination import Rows, fitting_rows

UNSETTLED = (EvaluationState.QUEUED, EvaluationState.RUNNING, EvaluationState.DELETING)


async def find(session: AsyncSession, project: str, id: str, *, lock: bool = False) -> EvaluationRow | None:
    query = select(EvaluationRow).where(EvaluationRow.project == project, EvaluationRow.id == id)
    return await session.scalar(query.with_for_update() if lock else query)


async def newest(
    session: AsyncSession,
    project: str,
    *,
    after: tuple[datetime, str] | None,
    limit: int,
    model: str | None = None,
    state: EvaluationState | None = None,
) -> Rows[EvaluationRow]:
    query = select(EvaluationRow).where(EvaluationRow.project == project)
    if model is not None:
        query = query.where(EvaluationRow.model == model)
    if state is not None:
        query = query.where(EvaluationRow.state == state)
    if after is not None:
        query = query.where(tuple_(EvaluationRow.created_at, EvaluationRow.id) < tuple_(*after))
    order = (EvaluationRow.created_at.desc(), EvaluationRow.id.desc())
    return await fitting_rows(session, query.order_by(*order), EvaluationRow.spec, limit)


async def unsettled(session: AsyncSession) -> Sequence[EvaluationRow]:
    """Return the evaluations of all projects that are queued, running or being deleted."""
    query = select(EvaluationRow).where(EvaluationRow.state.in_(UNSETTLED)).order_by(EvaluationRow.created_at)
    return (await session.scalars(query)).all()
