"""`/v1/jobs/{id}/…`: a job's spec, attempts, events, log lines, metrics and checkpoints."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.artifacts.paths import stage_picture, stages_folder
from tinyclip.schemas import Attempt, Checkpoint, Event, JobSpecs, LogLine, MetricPoint, Metrics, Page
from tinyclip.schemas._base import Key

from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.services import Project, ReadSession, ServicesDep
from tinyclip_server.http.streams import SSE_TOO, accepts_event_stream, last_event_id, stream
from tinyclip_server.jobs import repository, service
from tinyclip_server.jobs.checkpoints import committed
from tinyclip_server.jobs.series import metric_points
from tinyclip_server.jobs.views import attempt_view, event_view, log_view, point_view, specs_view
from tinyclip_server.problems import InvalidInput, NotFound

MAX_NAMES = 100
"""Series of one request by name."""
MAX_POINTS = 200_000
"""Points of all series of one answer."""

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

SVG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/svg+xml": {}}, "description": "the diagram"}}


@router.get("/spec", response_model=JobSpecs)
async def spec(job_id: str, session: ReadSession, project: Project) -> JobSpecs:
    """Get a job's spec as it was sent, and as the workers get it."""
    job = await service.get(session, project, job_id)
    return await asyncio.to_thread(specs_view, job)


@router.get("/attempts", response_model=Page[Attempt])
async def attempts(job_id: str, session: ReadSession, project: Project, paging: Paging) -> Page[Attempt]:
    """List a job's attempts, oldest first."""
    await service.get(session, project, job_id)
    rows = await repository.attempts_after(session, job_id, paging.after_number(), paging.page_size + 1)
    return paging.page(rows, attempt_view, lambda attempt: (attempt.number,))


@router.get("/events", response_model=Page[Event], responses=SSE_TOO)
async def events(
    job_id: str,
    request: Request,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    paging: Paging,
    tail: Annotated[int | None, Query(ge=1, le=2_000, description="only the last events, this many")] = None,
) -> Response | Page[Event]:
    """List a job's events, oldest first, or stream them."""
    job = await service.get(session, project, job_id)
    if accepts_event_stream(request):
        after = last_event_id(request)  # a client that reconnects continues where it was
        begin = (max(0, job.last_event - tail) if tail else 0) if after is None else after
        return stream(
            request, services.db, services.feeds, job_id, begin, job.last_event, repository.events_after, event_view
        )
    if tail:
        return Page(items=[event_view(event) for event in await repository.last_events(session, job, tail)])
    rows = await repository.events_after(session, job_id, paging.after_number(), paging.page_size + 1)
    return paging.page(rows, event_view, lambda event: (event.seq,))


@router.get("/logs", response_model=Page[LogLine], responses=SSE_TOO)
async def logs(
    job_id: str,
    request: Request,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    paging: Paging,
    tail: Annotated[int | None, Query(ge=1, le=2_000, description="only the last lines, this many")] = None,
    search: Annotated[Key, Query(description="only lines that contain this, in any case")] = "",
    level: Annotated[list[Key] | None, Query(max_length=10, description="may be repeated: lines of any of them")] = None,
) -> Response | Page[LogLine]:
    """List a job's log lines, oldest first, or stream them.

    A page of a search for rare text may be short, or empty: follow `next_page_token`.
    """
    job = await service.get(session, project, job_id)
    wanted = repository.LineFilter(search, level or ())
    if accepts_event_stream(request):
        after = last_event_id(request)  # a client that reconnects continues where it was
        begin = await _before_tail(session, job, tail, wanted) if after is None else after
        return stream(
            request, services.db, services.feeds, job_id, begin, job.last_log, repository.logs_after, log_view, wanted.matches
        )
    if tail:
        return Page(items=[log_view(line) for line in await repository.last_logs(session, job, tail, wanted)])
    rows = await repository.matching_logs(session, job, paging.after_number(), paging.page_size + 1, wanted)
    return paging.page(rows, log_view, lambda line: (line.seq,))


async def _before_tail(session: AsyncSession, job: JobRow, tail: int | None, wanted: repository.LineFilter) -> int:
    """Return the number after which a stream of the last lines begins; 0 for one of all."""
    if not tail:
        return 0
    if not wanted:
        return max(0, job.last_log - tail)
    last = await repository.last_logs(session, job, tail, wanted)
    return last[0].seq - 1 if last else job.last_log


@router.get("/metrics", response_model=Metrics, responses=SSE_TOO)
async def metrics(
    job_id: str,
    request: Request,
    services: ServicesDep,
    session: ReadSession,
    project: Project,
    names: Annotated[str, Query(description="comma-separated; all if omitted")] = "",
    stage: Annotated[int | None, Query(ge=0, le=10_000)] = None,
    max_points: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> Response:
    """Get a job's metrics as series by name, reduced to at most `max_points` points a stage, or stream all points.

    The first and the last point and the peaks between them are kept. The stream after `last`, sent as `Last-Event-ID`, has the
    points that follow; one of a step that is repeated replaces its earlier one.
    """
    job = await service.get(session, project, job_id)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if len(wanted) > MAX_NAMES:
        raise InvalidInput.field("/names", names, f"names {len(wanted):,} series; give at most {MAX_NAMES}")
    if accepts_event_stream(request):
        after = last_event_id(request) or 0
        return stream(
            request, services.db, services.feeds, job_id, after, job.last_metric, repository.points_after, point_view,
            lambda point: (not wanted or point.name in wanted) and stage in (None, point.stage),
        )
    points = await metric_points(session, job_id, wanted, stage, max_points, MAX_POINTS + 1)
    if len(points) > MAX_POINTS:
        message = f"gives more than {MAX_POINTS:,} points in all; give a smaller number, or name fewer series or a stage"
        raise InvalidInput.field("/max_points", max_points, message)
    document = await asyncio.to_thread(_series, wanted, points, job.last_metric)
    return Response(document, media_type="application/json")


def _series(names: Sequence[str], points: Sequence[Row[str, int, int, float]], last: int) -> str:
    """Return the document of all series, those without points among them."""
    series: dict[str, list[MetricPoint]] = {name: [] for name in names}
    for point in points:
        series.setdefault(point.name, []).append(MetricPoint(stage=point.stage, step=point.step, value=point.value))
    return Metrics(series=series, last=last).model_dump_json()


@router.get("/checkpoints", response_model=Page[Checkpoint])
async def checkpoints(job_id: str, services: ServicesDep, session: ReadSession, project: Project) -> Page[Checkpoint]:
    """List a job's committed checkpoints: those with a manifest in the artifacts store."""
    await service.get(session, project, job_id)
    await session.close()  # the store may be slow: no connection is held meanwhile
    return Page(items=committed(await services.store.find(stages_folder(job_id))))


@router.get("/stages/{index}/layout.svg", response_class=Response, responses=SVG)
async def layout_picture(
    job_id: str, index: Annotated[int, Path(ge=0, le=10_000)], services: ServicesDep, session: ReadSession, project: Project
) -> Response:
    """Draw the heads and MLP units that an automatic stage kept in each block when it was pruned."""
    job = await service.get(session, project, job_id)
    if index >= len(job.stages):
        raise NotFound(f"job {job_id} has {len(job.stages)} stages, counted from 0", code="no_such_stage")
    await session.close()
    picture = await services.store.read_if_exists(stage_picture(job_id, index, job.stages[index].name))
    if picture is None:
        message = f"stage {index} of {job_id} has no layout diagram; only an automatic stage has one, from its prune step on"
        raise NotFound(message, code="no_picture")
    return Response(picture, media_type="image/svg+xml", headers={"Content-Security-Policy": "sandbox"})
