"""Queries over the resources whose work Ray jobs do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import WorkloadKind

from tinyclip_server.database.tables import (
    AttemptRow,
    DatasetRow,
    DeploymentRow,
    EvaluationRow,
    ExportRow,
    IndexRow,
    JobRow,
    MeasurementRow,
    ReinforcementRow,
)

FollowedRow = DatasetRow | ReinforcementRow | IndexRow | EvaluationRow | ExportRow | MeasurementRow
FOLLOWED: tuple[type[FollowedRow], ...] = (DatasetRow, ReinforcementRow, IndexRow, EvaluationRow, ExportRow, MeasurementRow)
"""Rows whose newest Ray job is a column of theirs."""
CHUNK = 500
"""Ids of one statement; SQLite limits its parameters."""


@dataclass(frozen=True)
class Resource:
    """The resource of a Ray job."""

    kind: WorkloadKind
    name: str
    id: str


async def resources_of(session: AsyncSession, project: str, submissions: Sequence[str]) -> dict[str, Resource]:
    """Return the resources of a project whose work these Ray jobs do, by Ray's id."""
    found: dict[str, Resource] = {}
    for start in range(0, len(submissions), CHUNK):
        found |= await _resources_of(session, project, submissions[start : start + CHUNK])
    return found


async def deployments_of(session: AsyncSession, project: str) -> Sequence[DeploymentRow]:
    query = select(DeploymentRow).where(DeploymentRow.project == project).order_by(DeploymentRow.name)
    return (await session.scalars(query)).all()


async def _resources_of(session: AsyncSession, project: str, submissions: Sequence[str]) -> dict[str, Resource]:
    attempts = (
        select(AttemptRow.ray_submission_id, JobRow.name, JobRow.id)
        .join(JobRow, JobRow.id == AttemptRow.job_id)
        .where(JobRow.project == project, AttemptRow.ray_submission_id.in_(submissions))
    )
    found = {submission: Resource("job", name, id) for submission, name, id in await session.execute(attempts)}
    for table in FOLLOWED:
        query = select(table).where(table.project == project, table.ray_submission_id.in_(submissions))
        rows = cast(Sequence[FollowedRow], (await session.scalars(query)).all())
        found |= {row.ray_submission_id or "": _resource(row) for row in rows}
    return found


def _resource(row: FollowedRow) -> Resource:
    if isinstance(row, DatasetRow):
        return Resource("dataset", row.name, row.name)
    if isinstance(row, ReinforcementRow):
        return Resource("reinforcement", f"{row.dataset_name}@{row.dataset_version}", row.id)
    if isinstance(row, IndexRow):
        return Resource("index", row.name, row.name)
    if isinstance(row, EvaluationRow):
        return Resource("evaluation", row.model, row.id)
    if isinstance(row, MeasurementRow):
        return Resource("search", f"{row.kind} of {row.search_id}", row.search_id)
    return Resource("export", f"{row.model_name}@{row.model_version} {row.name}", row.id)
