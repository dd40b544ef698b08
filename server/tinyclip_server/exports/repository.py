"""Queries over exports."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import EvaluationState, ExportState

from tinyclip_server.database.tables import EvaluationRow, ExportRow

UNSETTLED = (ExportState.QUEUED, ExportState.RUNNING, ExportState.DELETING)


async def find(session: AsyncSession, model: str, version: int, name: str, *, lock: bool = False) -> ExportRow | None:
    query = select(ExportRow).where(
        ExportRow.model_name == model, ExportRow.model_version == version, ExportRow.name == name
    )
    return await session.scalar(query.with_for_update() if lock else query)


async def of_version(session: AsyncSession, model: str, version: int, *, lock: bool = False) -> Sequence[ExportRow]:
    """Return the exports of a version, by name."""
    query = select(ExportRow).where(ExportRow.model_name == model, ExportRow.model_version == version).order_by(ExportRow.name)
    return (await session.scalars(query.with_for_update() if lock else query)).all()


async def unsettled(session: AsyncSession) -> Sequence[ExportRow]:
    """Return the exports of all projects that are queued, running or being deleted."""
    query = select(ExportRow).where(ExportRow.state.in_(UNSETTLED)).order_by(ExportRow.created_at)
    return (await session.scalars(query)).all()


async def evaluated_tasks(session: AsyncSession, model: str, version: int) -> list[dict[str, Any]]:
    """Return the tasks of the newest successful evaluation of a version."""
    of_version = (EvaluationRow.model_name == model, EvaluationRow.model_version == version)
    query = select(EvaluationRow).where(*of_version, EvaluationRow.state == EvaluationState.SUCCEEDED)
    row = await session.scalar(query.order_by(EvaluationRow.created_at.desc()).limit(1))
    return list(row.request["tasks"]) if row is not None else []
