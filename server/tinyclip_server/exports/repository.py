"""Queries over exports."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import EvaluationState, ExportState

from tinyclip_server.database.tables import EvaluationRow, ExportRow

UNSETTLED = (ExportState.QUEUED, ExportState.RUNNING, ExportState.DELETING)


async def find(session: AsyncSession, model: str, version: int, name: str, *, lock: bool = False) -> ExportRow | None:
    mine = (ExportRow.model_name == model, ExportRow.model_version == version, ExportRow.name == name)
    query = select(ExportRow).where(*mine)
    return await session.scalar(query.with_for_update() if lock else query)


async def of_version(session: AsyncSession, model: str, version: int, *, lock: bool = False) -> Sequence[ExportRow]:
    """By name."""
    query = select(ExportRow).where(ExportRow.model_name == model, ExportRow.model_version == version).order_by(ExportRow.name)
    return (await session.scalars(query.with_for_update() if lock else query)).all()


async def unsettled(session: AsyncSession) -> Sequence[ExportRow]:
    """Of all projects, those that are being made or deleted."""
    query = select(ExportRow).where(ExportRow.state.in_(UNSETTLED)).order_by(ExportRow.created_at)
    return (await session.scalars(query)).all()


async def tasks_measured_on(session: AsyncSession, model: str, version: int) -> list[dict[str, Any]]:
    """The tasks of the newest evaluation of a version that has succeeded."""
    mine = (EvaluationRow.model_name == model, EvaluationRow.model_version == version)
    query = select(EvaluationRow).where(*mine, EvaluationRow.state == EvaluationState.SUCCEEDED)
    row = await session.scalar(query.order_by(EvaluationRow.created_at.desc()).limit(1))
    return list(row.request["tasks"]) if row is not None else []
