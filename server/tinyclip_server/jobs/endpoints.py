"""`/v1/jobs`: submit, find, change and end jobs. What a job tells of itself is in `history.py`."""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip.schemas import Job, JobClone, JobPatch, JobSpec, JobState, Page, Plan

from tinyclip_server.database.tables import JobRow
from tinyclip_server.http.conditions import IfMatch, IfNoneMatch, expect_match, names, quoted
from tinyclip_server.http.idempotency import AnswerOnce
from tinyclip_server.http.pagination import Paging
from tinyclip_server.http.resources import answer
from tinyclip_server.http.services import Project, ReadSession, Uses, WriteSession
from tinyclip_server.jobs import cleanup, repository, service, specs
from tinyclip_server.jobs.views import etag, job_view
from tinyclip_server.problems import InvalidInput

router = APIRouter(prefix="/jobs", tags=["jobs"])

LONG_POLL_SECONDS = 0.25


@router.post("", status_code=201, response_model=Job, responses={200: {"model": Plan, "description": "with validate_only"}})
async def create(
    body: JobSpec, services: Uses, project: Project, session: WriteSession, once: AnswerOnce, validate_only: bool = False
) -> Response:
    """Submit a spec. It is planned first: an impossible one is refused with the field, the value and what to change."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        spec, plan = await specs.plan(services, project, body)
        if validate_only:
            return plan, {}
        return _answer(await service.create(session, project, spec, plan), spec)

    return await once(session, 200 if validate_only else 201, make)


@router.get("", response_model=Page[Job])
async def find(
    session: ReadSession,
    project: Project,
    paging: Paging,
    state: Annotated[list[JobState] | None, Query(description="may be repeated: jobs in any of them")] = None,
    name: Annotated[list[str] | None, Query(description="may be repeated: jobs of any of them")] = None,
    label: Annotated[list[str] | None, Query(description="key:value, may be repeated: jobs with all of them")] = None,
) -> Page[Job]:
    """Jobs, newest first."""
    rows = await repository.newest(
        session, project, after=paging.after_newest(), limit=paging.page_size + 1, states=state or (), names=name or (),
        labels=[_label(pair) for pair in label or []],
    )
    return paging.page(rows, job_view, lambda job: (job.created_at, job.id))


@router.get("/{job_id}", response_model=Job, responses={304: {"description": "not changed within `wait` seconds"}})
async def get(
    job_id: str,
    services: Uses,
    project: Project,
    if_none_match: IfNoneMatch = None,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds to wait for a change, with If-None-Match")] = 0,
) -> Response:
    """One job as it is now, or as soon as it differs from the ETag given."""
    until = time.monotonic() + wait
    while True:
        async with services.db.read() as session:
            job = await service.get(session, project, job_id)
        unchanged = names(if_none_match, etag(job))
        left = until - time.monotonic()
        if not unchanged or left <= 0 or services.stopping.is_set():
            break
        await asyncio.sleep(min(LONG_POLL_SECONDS, left))
    if unchanged:
        return Response(status_code=304, headers={"ETag": quoted(etag(job))})
    return _response(job)


@router.patch("/{job_id}", response_model=Job)
async def patch(job_id: str, body: JobPatch, session: WriteSession, project: Project, if_match: IfMatch = None) -> Response:
    """Change name, labels or priority."""
    job = await service.get(session, project, job_id, lock=True)
    expect_match(if_match, etag(job))
    await service.patch(session, job, body)
    return _response(job)


@router.delete("/{job_id}", status_code=204)
async def delete(job_id: str, services: Uses, project: Project, if_match: IfMatch = None) -> None:
    """Forget an ended job and its artifacts; its model versions stay."""
    async with services.db.write() as session:
        job = await service.get(session, project, job_id, lock=True)
        expect_match(if_match, etag(job))
        await service.delete(session, job)
    await cleanup.remove_deleted(services)  # cut off here, the next round of the cleanup does it


@router.post("/{job_id}/cancel", status_code=202, response_model=Job)
async def cancel(job_id: str, session: WriteSession, project: Project, once: AnswerOnce) -> Response:
    """Ask for the end without a student; `cancelled` is said once the attempt is gone."""
    return await _transition(job_id, session, project, once, service.cancel)


@router.post("/{job_id}/pause", status_code=202, response_model=Job)
async def pause(job_id: str, session: WriteSession, project: Project, once: AnswerOnce) -> Response:
    """Ask for a stop at a checkpoint."""
    return await _transition(job_id, session, project, once, service.pause)


@router.post("/{job_id}/resume", status_code=202, response_model=Job)
async def resume(job_id: str, session: WriteSession, project: Project, once: AnswerOnce) -> Response:
    """Let a paused job go on from its checkpoint."""
    return await _transition(job_id, session, project, once, service.resume)


@router.post("/{job_id}/retry", status_code=202, response_model=Job)
async def retry(job_id: str, session: WriteSession, project: Project, once: AnswerOnce) -> Response:
    """Let a failed or cancelled job go on from its last checkpoint, as the new job that is answered."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        return _answer(await service.retry(session, project, job_id))

    return await once(session, 202, make)


@router.post("/{job_id}/clone", status_code=201, response_model=Job)
async def clone(
    job_id: str, body: JobClone, services: Uses, session: WriteSession, project: Project, once: AnswerOnce
) -> Response:
    """Submit a job's spec again, with changes."""

    async def make() -> tuple[BaseModel, dict[str, str]]:
        async with services.db.read() as reading:
            original = await service.get(reading, project, job_id)
        spec, plan = await specs.plan(services, project, specs.with_changes(original.spec, body.set))
        return _answer(await service.create(session, project, spec, plan), spec)

    return await once(session, 201, make)


async def _transition(
    job_id: str, session: AsyncSession, project: str, once: AnswerOnce, change: Callable[[AsyncSession, JobRow], None]
) -> Response:
    async def make() -> tuple[BaseModel, dict[str, str]]:
        job = await service.get(session, project, job_id, lock=True)
        change(session, job)
        await session.flush()
        return _answer(job)

    return await once(session, 202, make)


def _answer(job: JobRow, spec: JobSpec | None = None) -> tuple[Job, dict[str, str]]:
    return job_view(job, spec), {"ETag": quoted(etag(job)), "Location": f"/v1/jobs/{job.id}"}


def _response(job: JobRow) -> Response:
    return answer(job_view(job), etag(job))


def _label(pair: str) -> tuple[str, str]:
    key, colon, value = pair.partition(":")
    if not colon or not key:
        raise InvalidInput.field("/label", pair, "write it as key:value")
    return key, value
