"""Deletes Ray's records of jobs other than attempts: of data sets, evaluations, exports, indexes, and of rows deleted meanwhile.

Their rows know the newest job only and are deleted before Ray's record. So the jobs that Ray lists are compared with the rows:
a job of this service that ended long ago and that no row needs is deleted there. An interrupted round is repeated safely.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from tinyclip.schemas import DatasetState, EvaluationState, ExportState, IndexState, ReinforcementState

from tinyclip_server.backends.ray_gateway import EndedJob, RayUnavailable, works_in
from tinyclip_server.database.tables import (
    AttemptRow,
    DatasetRow,
    EvaluationRow,
    ExportRow,
    IndexRow,
    MeasurementRow,
    ReinforcementRow,
)
from tinyclip_server.http.services import Services

logger = logging.getLogger(__name__)

PREFIX = "tc-"
Followed = DatasetRow | EvaluationRow | ExportRow | IndexRow | MeasurementRow | ReinforcementRow
FOLLOWED: tuple[tuple[type[Followed], Sequence[str]], ...] = (
    (DatasetRow, (DatasetState.READY, DatasetState.FAILED)),
    (EvaluationRow, (EvaluationState.SUCCEEDED, EvaluationState.FAILED)),
    (ExportRow, (ExportState.SUCCEEDED, ExportState.FAILED)),
    (IndexRow, (IndexState.READY, IndexState.FAILED)),
    (MeasurementRow, ("succeeded", "failed", "kept")),
    (ReinforcementRow, (ReinforcementState.SUCCEEDED, ReinforcementState.FAILED)),
)
"""Rows with a Ray job, and the states in which Ray is not asked about it any more."""


async def delete_old_records(services: Services, ended_before: datetime) -> None:
    """Run one round."""
    try:
        found = [job for job in await services.ray.ended_jobs() if job.ended_at < ended_before and _is_ours(job, services)]
        needed = await _needed(services) if found else set()
        for job in found:
            if job.submission_id not in needed:
                await services.ray.delete_job(job.submission_id)
    except RayUnavailable as error:
        logger.debug("Ray's old records are kept for now: %s", error)


def _is_ours(job: EndedJob, services: Services) -> bool:
    """Return whether it worked in this service's store: several services may use one cluster."""
    return job.submission_id.startswith(PREFIX) and works_in(job.entrypoint, services.store.root)


async def _needed(services: Services) -> set[str]:
    """Return the jobs whose status is still needed, for example after all servers were down for days."""
    async with services.db.read() as session:
        needed = set(await session.scalars(select(AttemptRow.ray_submission_id).where(AttemptRow.forgotten_at.is_(None))))
        for table, settled in FOLLOWED:
            query = select(table.ray_submission_id).where(table.state.not_in(settled))
            needed |= {id for id in await session.scalars(query) if id is not None}
    return needed
