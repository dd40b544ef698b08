"""`/v1/jobs`: submit, find, change and end jobs. Their events, logs and metrics are in `history.py`."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Job, JobClone, JobPatch, JobSpec, JobState, Page, Plan
from tinyclip.schemas._base import Key, Line

from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.bodies import BoundedRoute
from tinyclip_server.http.callers import Caller
from tinyclip_server.http.conditions import IfMatch, IfNoneMatch, expect_match, quoted
from tinyclip_server.http.idempotency import Idempotent
from tinyclip_server.http.long_polls import Wait, wait_for_change
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import resource_response
from tinyclip_server.http.services import CallerDep, Project, ReadSession, ServicesDep, WriteSession
from tinyclip_server.jobs import cleanup, repository, service, specs
from tinyclip_server.jobs.actions import allowed
from tinyclip_server.jobs.views import etag, job_view
from tinyclip_server.problems import InvalidInput

router = APIRouter(route_class=BoundedRoute, prefix="/jobs", tags=["jobs"])

REMOVAL_SECONDS = 10.0
"""How long the request that deletes a job waits for the removal of its artifacts, which continues without it."""


@router.post("", status_code=201, response_model=Job, responses={200: {"model": Plan, "description": "with validate_only"}})
async def create(
    body: JobSpec,
    services: ServicesDep,
    caller: CallerDep,
    session: WriteSession,
    idempotent: Idempotent,
    validate_only: bool = False,
) -> Response:
    """Submit a job. Its spec is planned first: an invalid one is refused with the field, the value and what to change."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        planned = await specs.plan(services, caller.project, body)
        if validate_only:
            return planned.plan, {}
        job = await service.create(session, caller.project, planned)
        return await _body_and_headers(session, caller, job, planned.spec)

    return await idempotent.respond(session, 200 if validate_only else 201, make)


@router.get("", response_model=Page[Job])
async def find(
    session: ReadSession,
    caller: CallerDep,
    paging: Paging,
    state: Annotated[list[JobState] | None, Query(max_length=20, description="may be repeated: jobs in any of them")] = None,
    name: Annotated[list[Line] | None, Query(max_length=100, description="may be repeated: jobs of any of them")] = None,
    label: Annotated[
        list[Line] | None, Query(max_length=10, description="key:value, may be repeated: jobs with all of them")
    ] = None,
    search: Annotated[Key, Query(description="jobs whose name, id or value of a label contains this, in any case")] = "",
    parent: Annotated[Key, Query(description="the id of a search: its trials")] = "",
) -> Page[Job]:
    """List jobs, newest first.

    A page of large specs is shorter than `page_size`, and so is one of a search for rare text: follow `next_page_token`.
    """
    rows = await repository.newest(
        session, caller.project, after=paging.after_newest(), limit=paging.page_size + 1, states=state or (), names=name or (),
        labels=[_label(pair) for pair in label or []], search=search, parent=parent,
    )
    actions = await allowed(session, caller, rows)
    return paging.page(rows, lambda job: job_view(job, actions=actions(job)), lambda job: (job.created_at, job.id))


@router.get("/{job_id}", response_model=Job, responses={304: {"description": "not changed within `wait` seconds"}})
async def get(
    job_id: str,
    services: ServicesDep,
    caller: CallerDep,
    if_none_match: IfNoneMatch = None,
    wait: Wait = 0,
) -> Response:
    """Get a job, at once or as soon as it differs from the given ETag."""
    job, has_changed = await wait_for_change(
        services, lambda session: service.get(session, caller.project, job_id), etag, if_none_match, wait
    )
    if not has_changed:
        return Response(status_code=304, headers={"ETag": quoted(etag(job))})
    async with services.db.read() as session:
        return await _response(session, caller, job)


@router.patch("/{job_id}", response_model=Job)
async def patch(job_id: str, body: JobPatch, session: WriteSession, caller: CallerDep, if_match: IfMatch = None) -> Response:
    """Change a job's name, labels or priority."""
    job = await service.get(session, caller.project, job_id, lock=True)
    expect_match(if_match, etag(job))
    await service.patch(session, job, body)
    return await _response(session, caller, job)


@router.delete("/{job_id}", status_code=204)
async def delete(job_id: str, services: ServicesDep, project: Project, if_match: IfMatch = None) -> None:
    """Delete an ended job and its artifacts. Its model versions stay."""
    async with services.db.write() as session:
        job = await service.get(session, project, job_id, lock=True)
        expect_match(if_match, etag(job))
        await service.delete(session, job)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REMOVAL_SECONDS):
            await cleanup.remove_deleted(services)  # if this is interrupted, the next round of the cleanup does it


@router.post("/{job_id}/cancel", status_code=202, response_model=Job)
async def cancel(job_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Cancel a job. It is `cancelled` once its attempt has ended."""
    return await _transition(job_id, session, caller, idempotent, service.cancel)


@router.post("/{job_id}/pause", status_code=202, response_model=Job)
async def pause(job_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Pause a job at a checkpoint."""
    return await _transition(job_id, session, caller, idempotent, service.pause)


@router.post("/{job_id}/resume", status_code=202, response_model=Job)
async def resume(job_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Resume a paused job from its last checkpoint."""
    return await _transition(job_id, session, caller, idempotent, service.resume)


@router.post("/{job_id}/retry", status_code=202, response_model=Job)
async def retry(job_id: str, session: WriteSession, caller: CallerDep, idempotent: Idempotent) -> Response:
    """Retry a failed or cancelled job from its last checkpoint, as a new job, which is returned."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        return await _body_and_headers(session, caller, await service.retry(session, caller.project, job_id))

    return await idempotent.respond(session, 202, make)


@router.post("/{job_id}/clone", status_code=201, response_model=Job)
async def clone(
    job_id: str, body: JobClone, services: ServicesDep, session: WriteSession, caller: CallerDep, idempotent: Idempotent
) -> Response:
    """Submit a job's spec again, with changes, as a new job."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        async with services.db.read() as reading:
            original = await service.get(reading, caller.project, job_id)
        changed = await asyncio.to_thread(specs.with_changes, original.spec, body.set)
        submitted = await asyncio.to_thread(specs.submitted_with_changes, original.submitted_spec, body.set, changed)
        planned = await specs.plan(services, caller.project, changed, submitted)
        job = await service.create(session, caller.project, planned)
        return await _body_and_headers(session, caller, job, planned.spec)

    return await idempotent.respond(session, 201, make)


async def _transition(
    job_id: str, session: AsyncSession, caller: Caller, idempotent: Idempotent, change: Callable[[AsyncSession, JobRow], None]
) -> Response:
    async def make() -> tuple[BaseModel, dict[str, str]]:
        job = await service.get(session, caller.project, job_id, lock=True)
        change(session, job)
        await session.flush()
        return await _body_and_headers(session, caller, job)

    return await idempotent.respond(session, 202, make)


async def _body_and_headers(
    session: AsyncSession, caller: Caller, job: JobRow, spec: JobSpec | None = None
) -> tuple[Job, dict[str, str]]:
    actions = await allowed(session, caller, [job])
    return job_view(job, spec, actions(job)), {"ETag": quoted(etag(job)), "Location": f"/v1/jobs/{job.id}"}


async def _response(session: AsyncSession, caller: Caller, job: JobRow) -> Response:
    actions = await allowed(session, caller, [job])
    return resource_response(job_view(job, actions=actions(job)), etag(job))


def _label(pair: str) -> tuple[str, str]:
    key, colon, value = pair.partition(":")
    if not colon or not key:
        raise InvalidInput.field("/label", pair, "write it as key:value")
    return key, value
