"""A job's events and log lines as server-sent events: from any number on, in order, until the job has ended."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import anyio
from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sse_starlette import EventSourceResponse, ServerSentEvent
from tinyclip.schemas import JobState

from tinyclip_server.db import Database
from tinyclip_server.problems import InvalidInput
from tinyclip_server.tables import JobRow

POLL_SECONDS = 0.3
KEEPALIVE_SECONDS = 15
FAREWELL_SECONDS = 2.0
"""For a stream to end by itself when the server stops; then it is cut off."""
BATCH = 500


class Numbered(Protocol):
    @property
    def seq(self) -> int: ...


RowT = TypeVar("RowT", bound=Numbered)


def last_event_id(request: Request) -> int | None:
    """After which number to go on; null for a reader that comes for the first time. Raises InvalidInput for no number."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return None
    if not given.isdecimal() or len(given) > 15:
        raise InvalidInput.field("/Last-Event-ID", given, "not a sequence number of this stream")
    return int(given)


def stream(
    db: Database,
    job_id: str,
    after: int,
    fetch: Callable[[AsyncSession, str, int, int], Awaitable[Sequence[RowT]]],
    view: Callable[[RowT], BaseModel],
) -> EventSourceResponse:
    """Rows numbered above `after`, as they come."""
    stopping = anyio.Event()  # set when the server is told to stop: the stream ends between two messages, and is gone on with
    messages = _messages(db, job_id, after, fetch, view, stopping)
    return EventSourceResponse(
        messages, ping=KEEPALIVE_SECONDS, shutdown_event=stopping, shutdown_grace_period=FAREWELL_SECONDS
    )


async def _messages(
    db: Database,
    job_id: str,
    after: int,
    fetch: Callable[[AsyncSession, str, int, int], Awaitable[Sequence[RowT]]],
    view: Callable[[RowT], BaseModel],
    stopping: anyio.Event,
) -> AsyncIterator[ServerSentEvent]:
    while not stopping.is_set():
        async with db.read() as session:
            # The state first: what is read after an end was seen is all there will be.
            state = await session.scalar(select(JobRow.state).where(JobRow.id == job_id))
            rows = await fetch(session, job_id, after, BATCH)
        for row in rows:
            yield ServerSentEvent(id=str(row.seq), data=view(row).model_dump_json())
            after = row.seq
        if len(rows) == BATCH:
            continue
        if state is None or JobState(state).terminal:
            return
        with anyio.move_on_after(POLL_SECONDS):
            await stopping.wait()
