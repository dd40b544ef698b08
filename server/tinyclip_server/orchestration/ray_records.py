"""Ray's records of jobs other than attempts: of evaluations, exports and indexes, and of whatever has been deleted here since.

Their rows know the newest job only, and go before Ray's record does. So Ray is asked what it has, and what is ours, ended long
ago and asked for by no row is deleted there. A round that is cut off is made again and finds less.
"""

import logging
import shlex
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from tinyclip.schemas import EvaluationState, ExportState, IndexState

from tinyclip_server.backends.ray_gateway import EndedJob, RayUnavailable
from tinyclip_server.database.tables import AttemptRow, EvaluationRow, ExportRow, IndexRow
from tinyclip_server.http.services import Services

logger = logging.getLogger(__name__)

PREFIX = "tc-"
FOLLOWED: tuple[tuple[type[EvaluationRow | ExportRow | IndexRow], Sequence[str]], ...] = (
    (EvaluationRow, (EvaluationState.SUCCEEDED, EvaluationState.FAILED)),
    (ExportRow, (ExportState.SUCCEEDED, ExportState.FAILED)),
    (IndexRow, (IndexState.READY, IndexState.FAILED)),
)
"""Rows with a Ray job, and the states in which nobody asks Ray about it any more."""


async def forget_others(services: Services, ended_before: datetime) -> None:
    """One round."""
    try:
        found = [job for job in await services.ray.ended_jobs() if job.ended_at < ended_before and _is_ours(job, services)]
        wanted = await _wanted(services) if found else set()
        for job in found:
            if job.submission_id not in wanted:
                await services.ray.delete_job(job.submission_id)
    except RayUnavailable as error:
        logger.debug("Ray's old records stay for now: %s", error)


def _is_ours(job: EndedJob, services: Services) -> bool:
    """Whether it worked in our store: several services may use one cluster."""
    return job.submission_id.startswith(PREFIX) and f" --artifacts {shlex.quote(services.store.root)} " in job.entrypoint


async def _wanted(services: Services) -> set[str]:
    """Jobs of which Ray's word still counts, as where all servers were away for days. Attempts have marks of their own."""
    async with services.db.read() as session:
        wanted = set(await session.scalars(select(AttemptRow.ray_submission_id).where(AttemptRow.forgotten_at.is_(None))))
        for table, settled in FOLLOWED:
            query = select(table.ray_submission_id).where(table.state.not_in(settled))
            wanted |= {id for id in await session.scalars(query) if id is not None}
    return wanted
