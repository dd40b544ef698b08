"""`/v1/searches`: create, find and end searches, and read their events."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import JobState, Page, Search, SearchEvent, SearchPlan, SearchPost

from tinyclip_server.database.tables import SearchRow
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, IfNoneMatch, expect_match, quoted
from tinyclip_server.http.idempotency import Idempotent
from tinyclip_server.http.long_polls import Wait, wait_for_change
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, Project, ReadSession, ServicesDep, WriteSession
from tinyclip_server.http.streams import SSE_TOO, accepts_event_stream, last_event_id, stream
from tinyclip_server.searches import repository, service
from tinyclip_server.searches.actions import allowed
from tinyclip_server.searches.checks import check
from tinyclip_server.searches.service import etag
from tinyclip_server.searches.trials import known_trials
from tinyclip_server.searches.views import Counts, event_view, search_view

router = APIRouter(route_class=BoundedRoute, prefix="/searches", tags=["searches"])

PLAN_TOO: dict[int | str, dict[str, Any]] = {200: {"model": SearchPlan, "description": "with validate_only"}}


@router.post("", status_code=201, response_model=Search, responses=PLAN_TOO)
async def create(
    body: SearchPost,
    services: ServicesDep,
    caller: CallerDep,
    session: WriteSession,
    idempotent: Idempotent,
    validate_only: bool = False,
) -> Response:
    """Search the smallest student that meets the constraints, or vary fields of a spec. Invalid fields are named."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        checked = await check(services, caller.project, body)
        if validate_only:
            return checked.plan, {}
        search = await service.create(session, caller.project, checked)
        return await _body_and_headers(session, caller, search)

    return await idempotent.respond(session, 200 if validate_only else 201, make)


@router.get("", response_model=Page[Search])
async def find(
    session: ReadSession,
    caller: CallerDep,
    paging: Paging,
    state: Annotated[list[JobState] | None, Query(max_length=20, description="may be repeated: searches in any of them")] = None,
) -> Page[Search]:
    """List searches without their trials, newest first."""
    rows = await repository.newest(
        session, caller.project, after=paging.after_newest(), limit=paging.page_size + 1, states=state or ()
    )
    counts = await repository.count_trials(session, [row.id for row in rows])
    return paging.page(
        rows, lambda row: search_view(row, Counts(*counts.get(row.id, ())), (), allowed(caller, row)),
        lambda row: (row.created_at, row.id),
    )  # fmt: skip


@router.get("/{search_id}", response_model=Search, responses={304: {"description": "not changed within `wait` seconds"}})
async def get(
    search_id: str,
    services: ServicesDep,
    caller: CallerDep,
    if_none_match: IfNoneMatch = None,
    wait: Wait = 0,
) -> Response:
    """Get a search with its trials, at once or as soon as it differs from the given ETag."""
    search, has_changed = await wait_for_change(
        services, lambda session: service.get(session, caller.project, search_id), etag, if_none_match, wait
    )
    if not has_changed:
        return Response(status_code=304, headers={"ETag": quoted(etag(search))})
    async with services.db.read() as session:
        view = await _view(session, caller, search)
    return resource_response(view, etag(search))


@router.get("/{search_id}/events", response_model=Page[SearchEvent], responses=SSE_TOO)
async def events(
    search_id: str, request: Request, services: ServicesDep, session: ReadSession, project: Project, paging: Paging
) -> Response | Page[SearchEvent]:
    """List a search's events, oldest first, or stream them."""
    search = await service.get(session, project, search_id)
    if accepts_event_stream(request):
        after = last_event_id(request) or 0  # a client that reconnects continues where it was
        return stream(
            request, services.db, services.feeds, search_id, after, search.last_event, repository.events_after, event_view,
            owner=SearchRow,
        )
    rows = await repository.events_after(session, search_id, paging.after_number(), paging.page_size + 1)
    return paging.page(rows, event_view, lambda event: (event.seq,))


@router.post("/{search_id}/cancel", status_code=202, response_model=Search)
async def cancel(search_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Cancel a search and its jobs. It is `cancelled` once they have ended."""
    return await _transition(search_id, session, caller, idempotent, service.cancel)


@router.post("/{search_id}/pause", status_code=202, response_model=Search)
async def pause(search_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Pause a search, and its jobs at a checkpoint."""
    return await _transition(search_id, session, caller, idempotent, service.pause)


@router.post("/{search_id}/resume", status_code=202, response_model=Search)
async def resume(search_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Go on with a paused search and its paused jobs."""
    return await _transition(search_id, session, caller, idempotent, service.resume)


@router.delete("/{search_id}", status_code=204)
async def delete(search_id: str, session: WriteSession, project: Project, if_match: IfMatch = None) -> None:
    """Delete an ended search. Its jobs and their model versions stay."""
    search = await service.get(session, project, search_id, lock=True)
    expect_match(if_match, etag(search))
    await service.delete(session, search)


async def _transition(
    search_id: str, session: AsyncSession, caller: Caller, idempotent: Idempotent,
    change: Callable[[AsyncSession, SearchRow], Awaitable[None]],
) -> Response:  # fmt: skip
    async def make() -> tuple[BaseModel, dict[str, str]]:
        search = await service.get(session, caller.project, search_id, lock=True)
        await change(session, search)
        await session.flush()
        return await _body_and_headers(session, caller, search)

    return await idempotent.respond(session, 202, make)


async def _body_and_headers(session: AsyncSession, caller: Caller, search: SearchRow) -> tuple[Search, dict[str, str]]:
    headers = {"ETag": quoted(etag(search)), "Location": f"/v1/searches/{search.id}"}
    return await _view(session, caller, search), headers


async def _view(session: AsyncSession, caller: Caller, search: SearchRow) -> Search:
    trials = await known_trials(session, search.id)
    counts = Counts(len(trials), sum(trial.outcome.state.terminal for trial in trials))
    return search_view(search, counts, trials, allowed(caller, search))
