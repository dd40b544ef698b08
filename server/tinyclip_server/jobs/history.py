"""`/v1/jobs/{id}/…`: what a job tells of itself: events, log lines, metrics and checkpoints."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from tinyclip.schemas import Checkpoint, Event, LogLine, MetricPoint, Metrics, Page

from tinyclip_server.conditions import wants_events
from tinyclip_server.jobs import repository, service
from tinyclip_server.jobs.streams import last_event_id, stream
from tinyclip_server.jobs.views import event_view, log_view
from tinyclip_server.pagination import Paging
from tinyclip_server.services import Project, ReadSession, Uses

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

SSE_TOO: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "a page, or server-sent events if asked for"}
}
MANIFEST = "manifest.json"
"""Written last: a checkpoint without it is not one."""


@router.get("/events", response_model=Page[Event], responses=SSE_TOO)
async def events(
    job_id: str, request: Request, services: Uses, session: ReadSession, project: Project, paging: Paging
) -> Response | Page[Event]:
    """A job's history, oldest first, or live."""
    await service.get(session, project, job_id)
    if wants_events(request):
        return stream(services.db, job_id, last_event_id(request), repository.events_after, event_view)
    rows = await repository.events_after(session, job_id, paging.after_number(), paging.page_size + 1)
    return paging.page(rows, event_view, lambda event: (event.seq,))


@router.get("/logs", response_model=Page[LogLine], responses=SSE_TOO)
async def logs(
    job_id: str,
    request: Request,
    services: Uses,
    session: ReadSession,
    project: Project,
    paging: Paging,
    tail: Annotated[int | None, Query(ge=1, le=10_000, description="only the last so many lines")] = None,
) -> Response | Page[LogLine]:
    """A job's log lines, oldest first, or live."""
    job = await service.get(session, project, job_id)
    before_tail = max(0, job.last_log - tail) if tail else 0
    if wants_events(request):
        return stream(services.db, job_id, max(last_event_id(request), before_tail), repository.logs_after, log_view)
    if tail:
        return Page(items=[log_view(line) for line in await repository.logs_after(session, job_id, before_tail, tail)])
    rows = await repository.logs_after(session, job_id, paging.after_number(), paging.page_size + 1)
    return paging.page(rows, log_view, lambda line: (line.seq,))


@router.get("/metrics", response_model=Metrics)
async def metrics(
    job_id: str,
    session: ReadSession,
    project: Project,
    names: Annotated[str, Query(description="comma-separated; all if omitted")] = "",
    stage: Annotated[int | None, Query(ge=0, le=10_000)] = None,
    max_points: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> Metrics:
    """Series by name, thinned to at most `max_points` points a stage."""
    await service.get(session, project, job_id)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    series: dict[str, list[MetricPoint]] = {name: [] for name in wanted}
    for point in await repository.metric_points(session, job_id, wanted, stage, max_points):
        series.setdefault(point.name, []).append(MetricPoint(stage=point.stage, step=point.step, value=point.value))
    return Metrics(series=series)


@router.get("/checkpoints", response_model=Page[Checkpoint])
async def checkpoints(job_id: str, services: Uses, session: ReadSession, project: Project) -> Page[Checkpoint]:
    """The checkpoints that can be gone on from; those that were cleaned up are left out."""
    await service.get(session, project, job_id)
    told = await repository.checkpoint_events(session, job_id)
    there = await asyncio.gather(*(services.store.exists(f"{event.data['path']}/{MANIFEST}") for event in told))
    return Page(
        items=[
            Checkpoint(
                stage=event.stage or 0, step=event.data["step"], attempt=event.attempt or 0, path=event.data["path"],
                bytes=event.data.get("bytes"), created_at=event.created_at,
            )
            for event, exists in zip(told, there, strict=True)
            if exists
        ]
    )
