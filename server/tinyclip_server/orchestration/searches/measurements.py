"""Follows the Ray jobs of searches: `costs`, which measure the speed of layouts, and `finalists`, which measure the candidates.

A result is kept in the row of the measurement; the search's own loop takes it from there.
"""

import json
from collections.abc import Sequence

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.documents import WorkerEvent
from tinyclip.artifacts.paths import (
    search_costs_events,
    search_costs_request,
    search_finalists_events,
    search_finalists_request,
    search_folder,
)
from tinyclip.artifacts.searches import CostModel, Finalists

from tinyclip_server.database.tables import MeasurementRow
from tinyclip_server.http.resources import DELETING
from tinyclip_server.http.services import Services
from tinyclip_server.orchestration.followers.follower import MODULE, Follower
from tinyclip_server.orchestration.ray_jobs.observation import RayJob
from tinyclip_server.searches import service
from tinyclip_server.searches.service import WORKING

MAX_LOST = 3
"""Jobs in all, if they end without a final event, as when their node dies."""
REQUESTS = {"costs": search_costs_request, "finalists": search_finalists_request}
EVENTS = {"costs": search_costs_events, "finalists": search_finalists_events}
RESULTS: dict[str, type[BaseModel]] = {"costs": CostModel, "finalists": Finalists}


async def reconcile(services: Services) -> None:
    """Run one round over all measurements that are in progress or being deleted."""
    await MeasurementFollower(services).reconcile()


class MeasurementFollower(Follower[MeasurementRow]):
    noun = "measurement"
    active = WORKING
    deleting = DELETING

    async def unsettled(self, session: AsyncSession) -> Sequence[MeasurementRow]:
        query = select(MeasurementRow).where(MeasurementRow.state.in_((*WORKING, DELETING)))
        return (await session.scalars(query.order_by(MeasurementRow.created_at))).all()

    async def job(self, session: AsyncSession, row: MeasurementRow) -> RayJob:
        request = {**row.request, "attempt": row.attempt}
        return RayJob(
            submission_id=row.ray_submission_id or "",
            name=f"{row.kind} of {row.search_id}",
            metadata={"tinyclip_search": row.search_id},
            module=[MODULE, row.kind],
            arguments=["--search", row.search_id, "--attempt", str(row.attempt)],
            request_path=REQUESTS[row.kind](row.search_id),
            request=lambda: json.dumps(request).encode(),
            events=EVENTS[row.kind](row.search_id, row.attempt),
        )

    def folders(self, row: MeasurementRow) -> Sequence[str]:
        return [f"{search_folder(row.search_id)}/{row.kind}"]

    def retry(self, row: MeasurementRow) -> bool:
        row.lost += 1
        if row.lost >= MAX_LOST:
            return False
        service.begin_attempt(row)
        return True

    def fail(self, row: MeasurementRow, code: str, message: str) -> None:
        row.state, row.message = "failed", message

    async def apply_event(self, session: AsyncSession, row: MeasurementRow, event: WorkerEvent) -> None:
        what = event.type.removeprefix(f"{row.kind}.")
        if what == "started":
            row.state = "running"
        elif what == "progress":
            row.progress, row.message = min(0.99, float(event.data["fraction"] or 0.0)), event.message
        elif what == "failed":
            row.state, row.message = "failed", event.message
        elif what == "finished":
            row.result = RESULTS[row.kind].model_validate(event.data).model_dump(mode="json")
            row.state, row.progress, row.message = "succeeded", 1.0, ""
