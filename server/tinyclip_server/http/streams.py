"""A job's events and log lines as server-sent events: from any number on, in order, until the job has ended.

However many watch a job, its news are read and written out once: each reader takes from a common `Feed` what it has not had.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

import anyio
from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sse_starlette import EventSourceResponse, ServerSentEvent
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import Database
from tinyclip_server.database.tables import JobRow
from tinyclip_server.problems import InvalidInput

POLL_SECONDS = 0.3
KEEPALIVE_SECONDS = 15
FAREWELL_SECONDS = 2.0
"""For a stream to end by itself when the server stops; then it is cut off."""
BATCH = 500
KEPT = 1000
"""Lines of a feed, for readers that are a little behind; one that is further behind reads the database."""
MOST_BEHIND = 4
"""Such readers at once: the database has other callers too."""


class Numbered(Protocol):
    @property
    def seq(self) -> int: ...


RowT = TypeVar("RowT", bound=Numbered)


class Line(NamedTuple):
    """A row as it is sent."""

    seq: int
    data: str


Read = Callable[[AsyncSession, int], Awaitable[list[Line]]]
"""At most BATCH lines numbered above a number, in order."""


class Feed:
    """The newest lines of one stream, read again by whichever reader finds them old."""

    def __init__(self, db: Database, job_id: str, after: int, read: Read) -> None:
        self._db, self._job_id, self._read, self._last = db, job_id, read, after
        self._lines: deque[Line] = deque(maxlen=KEPT)
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self.ended = False
        """Whether the lines are all that there will be."""

    async def refresh(self) -> None:
        """Look for news if the last look was some time ago."""
        async with self._turn:
            while time.monotonic() - self._read_at >= POLL_SECONDS and not self.ended:
                async with self._db.read() as session:
                    # The state first: what is read after an end was seen is all there will be.
                    state = await session.scalar(select(JobRow.state).where(JobRow.id == self._job_id))
                    lines = await self._read(session, self._last)
                self._lines.extend(lines)
                if lines:
                    self._last = lines[-1].seq
                if len(lines) < BATCH:
                    self._read_at = time.monotonic()
                    self.ended = state is None or JobState(state).terminal

    def after(self, seq: int) -> list[Line] | None:
        """The lines numbered above; null where some of them are no longer held."""
        before_all = self._lines[0].seq - 1 if self._lines else self._last
        if seq < before_all:
            return None
        return list(itertools.takewhile(lambda line: line.seq > seq, reversed(self._lines)))[::-1]


class Feeds:
    """Those that somebody reads, by job and kind."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[tuple[str, str], Feed] = WeakValueDictionary()
        self.behind = asyncio.Semaphore(MOST_BEHIND)

    def of(self, db: Database, job_id: str, kind: str, after: int, read: Read) -> Feed:
        feed = self._feeds.get((job_id, kind))
        if feed is None:
            feed = self._feeds[job_id, kind] = Feed(db, job_id, after, read)
        return feed


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
    feeds: Feeds,
    job_id: str,
    after: int,
    newest: int,
    fetch: Callable[[AsyncSession, str, int, int], Awaitable[Sequence[RowT]]],
    view: Callable[[RowT], BaseModel],
) -> EventSourceResponse:
    """Rows numbered above `after`, as they come; `newest` is the last number by now."""

    async def read(session: AsyncSession, seq: int) -> list[Line]:
        return [Line(row.seq, view(row).model_dump_json()) for row in await fetch(session, job_id, seq, BATCH)]

    stopping = anyio.Event()  # set when the server is told to stop: the stream ends between two messages, and is gone on with
    feed = feeds.of(db, job_id, fetch.__name__, max(min(after, newest), newest - KEPT), read)
    return EventSourceResponse(
        _messages(db, feed, feeds.behind, after, read, stopping), ping=KEEPALIVE_SECONDS, shutdown_event=stopping,
        shutdown_grace_period=FAREWELL_SECONDS,
    )


async def _messages(
    db: Database, feed: Feed, behind: asyncio.Semaphore, after: int, read: Read, stopping: anyio.Event
) -> AsyncIterator[ServerSentEvent]:
    while not stopping.is_set():
        await feed.refresh()
        ended, lines = feed.ended, feed.after(after)
        caught_up = lines is not None
        if lines is None:
            async with behind, db.read() as session:
                lines = await read(session, after)
        for line in lines:
            yield ServerSentEvent(id=str(line.seq), data=line.data)
            after = line.seq
        if not caught_up and lines:
            continue
        if ended:
            return
        with anyio.move_on_after(POLL_SECONDS):
            await stopping.wait()
