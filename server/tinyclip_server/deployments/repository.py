"""Queries over deployments."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.database.tables import DeploymentRow


async def find(session: AsyncSession, project: str, name: str, *, lock: bool = False) -> DeploymentRow | None:
    query = select(DeploymentRow).where(DeploymentRow.project == project, DeploymentRow.name == name)
    return await session.scalar(query.with_for_update() if lock else query)


async def by_name(session: AsyncSession, project: str, after: str, limit: int) -> Sequence[DeploymentRow]:
    query = select(DeploymentRow).where(DeploymentRow.project == project, DeploymentRow.name > after)
    return (await session.scalars(query.order_by(DeploymentRow.name).limit(limit))).all()


async def of_all_projects(session: AsyncSession) -> Sequence[DeploymentRow]:
    """Return all deployments, since the configuration of Serve must be complete."""
    return (await session.scalars(select(DeploymentRow).order_by(DeploymentRow.name))).all()
