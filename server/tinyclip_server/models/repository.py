"""Queries over models, versions and aliases."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.database.tables import AliasRow, ModelRow, ModelVersionRow


async def find(session: AsyncSession, project: str, name: str) -> ModelRow | None:
    """Return a model that has a version; a name that is only reserved has none."""
    return await session.scalar(_with_versions(project).where(ModelRow.name == name))


async def by_name(session: AsyncSession, project: str, after: str, limit: int) -> Sequence[ModelRow]:
    query = _with_versions(project).where(ModelRow.name > after).order_by(ModelRow.name).limit(limit)
    return (await session.scalars(query)).all()


async def latest(session: AsyncSession, name: str) -> int | None:
    return await session.scalar(select(func.max(ModelVersionRow.version)).where(ModelVersionRow.model_name == name))


async def version(session: AsyncSession, name: str, number: int) -> ModelVersionRow | None:
    return await session.get(ModelVersionRow, (name, number))


async def params(session: AsyncSession, name: str, number: int) -> Any:
    """Return the parameters of a version, without the rest of its document, which may have thousands of shards."""
    this = (ModelVersionRow.model_name == name, ModelVersionRow.version == number)
    return await session.scalar(select(ModelVersionRow.document["params"]).where(*this))


async def version_numbers(session: AsyncSession, name: str) -> Sequence[int]:
    query = select(ModelVersionRow.version).where(ModelVersionRow.model_name == name).order_by(ModelVersionRow.version)
    return (await session.scalars(query)).all()


async def versions_before(session: AsyncSession, name: str, before: int | None, limit: int) -> Sequence[ModelVersionRow]:
    """Return versions below a number, newest first."""
    query = select(ModelVersionRow).where(ModelVersionRow.model_name == name)
    if before is not None:
        query = query.where(ModelVersionRow.version < before)
    return (await session.scalars(query.order_by(ModelVersionRow.version.desc()).limit(limit))).all()


async def aliases(session: AsyncSession, name: str) -> dict[str, int]:
    rows = await session.scalars(select(AliasRow).where(AliasRow.model_name == name).order_by(AliasRow.alias))
    return {row.alias: row.version for row in rows}


def _with_versions(project: str) -> Select[ModelRow]:
    has_versions = select(ModelVersionRow.version).where(ModelVersionRow.model_name == ModelRow.name).exists()
    return select(ModelRow).where(ModelRow.project == project, has_versions)
