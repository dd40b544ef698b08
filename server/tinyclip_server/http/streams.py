"""A job's or a search's history as server-sent events: from any number on, in order, until it has ended.

However many clients watch a job, its new rows are read and serialized once: all readers share one `Feed`.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

import anyio
from fastapi import Request
from pydantic import BaseModel
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send
from tinyclip.schemas import JobState

from tinyclip_server.database.engine import Database
from tinyclip_server.database.tables import JobRow, SearchRow
from tinyclip_server.http.callers import caller_of, counted_address
from tinyclip_server.problems import InvalidInput, TooManyRequests

POLL_SECONDS = 0.3
KEEPALIVE_SECONDS = 15
SHUTDOWN_GRACE_SECONDS = 2.0
"""For a stream to end when the server stops; after that it is cancelled."""
BATCH = 500
BUFFERED_LINES = 1000
"""Lines that a feed holds for slower readers; a reader that is further behind reads the database."""
MAX_STREAMS = 100
"""Streams of one token, or of one address or IPv6 network where none is required, at once."""
MAX_LAGGING_READERS = 4
"""Readers of the database at once, so that other requests are served too."""


class Numbered(Protocol):
    @property
    def seq(self) -> int: ...


RowT = TypeVar("RowT", bound=Numbered)


class Line(NamedTuple):
    """A serialized row, and the row for those who want only some."""

    seq: int
    data: str
    row: Any


Owner = type[JobRow] | type[SearchRow]
"""What a history belongs to."""
Read = Callable[[AsyncSession, int], Awaitable[list[Line]]]
"""Returns at most BATCH lines above a sequence number, in order."""


class Feed:
    """The newest lines of one stream; any reader refreshes them when they are out of date."""

    def __init__(self, db: Database, state: Select[str], after: int, read: Read) -> None:
        """Create a feed that ends with a terminal state: `state` selects that of the job or search."""
        self._db, self._state, self._read, self._last = db, state, read, after
        self._lines: deque[Line] = deque(maxlen=BUFFERED_LINES)
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self.ended = False
        """True once no more lines will follow."""

    async def refresh(self) -> None:
        """Read new lines unless they were read less than POLL_SECONDS ago."""
        async with self._turn:
            while time.monotonic() - self._read_at >= POLL_SECONDS and not self.ended:
                async with self._db.read() as session:
                    # The state first: lines that are read after the end are complete.
                    state = await session.scalar(self._state)
                    lines = await self._read(session, self._last)
                self._lines.extend(lines)
                if lines:
                    self._last = lines[-1].seq
                if len(lines) < BATCH:
                    self._read_at = time.monotonic()
                    self.ended = state is None or JobState(state).terminal

    def after(self, seq: int) -> list[Line] | None:
        """Return the lines above a sequence number; None if some of them are no longer buffered."""
        before_all = self._lines[0].seq - 1 if self._lines else self._last
        if seq < before_all:
            return None
        return list(itertools.takewhile(lambda line: line.seq > seq, reversed(self._lines)))[::-1]


class Feeds:
    """The feeds that have readers, by job or search and kind."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[tuple[str, str], Feed] = WeakValueDictionary()
        self.lagging_readers = asyncio.Semaphore(MAX_LAGGING_READERS)
        self._open: Counter[str] = Counter()

    def get(self, db: Database, owner: Owner, id: str, kind: str, after: int, read: Read) -> Feed:
        feed = self._feeds.get((id, kind))
        if feed is None:
            feed = self._feeds[id, kind] = Feed(db, select(owner.state).where(owner.id == id), after, read)
        return feed

    @contextlib.contextmanager
    def counted(self, reader: str) -> Iterator[None]:
        """Count a stream as open in the block. Raises TooManyRequests if the reader has too many."""
        if self._open[reader] >= MAX_STREAMS:
            raise TooManyRequests(f"this token has {MAX_STREAMS} open streams; close some of them", retry_after=5)
        self._open[reader] += 1
        try:
            yield
        finally:
            self._open[reader] -= 1
            if not self._open[reader]:
                del self._open[reader]


class _CountedResponse(EventSourceResponse):
    """A stream that is counted from before its status is sent until it ends, so that simultaneous requests count too."""

    def __init__(
        self, counted: Callable[[], contextlib.AbstractContextManager[None]], messages: AsyncIterator[ServerSentEvent],
        **options: Any,
    ) -> None:
        super().__init__(messages, **options)
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises TooManyRequests."""
        with self._counted():
            await super().__call__(scope, receive, send)


SSE_TOO: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "a page, or server-sent events if asked for"}
}
"""Of routes that answer with a page or a stream, for the API's document."""


def accepts_event_stream(request: Request) -> bool:
    """Return whether the client asks for server-sent events."""
    return "text/event-stream" in request.headers.get("accept", "")


def last_event_id(request: Request) -> int | None:
    """Return the number of the last event that the client has; None for a new client. Raises InvalidInput."""
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return None
    if not given.isdecimal() or len(given) > 15:
        message = "not a sequence number of this stream; send the id of the last event received"
        raise InvalidInput.field("/Last-Event-ID", given, message)
    return int(given)


def stream(
    request: Request,
    db: Database,
    feeds: Feeds,
    id: str,
    after: int,
    newest: int,
    fetch: Callable[[AsyncSession, str, int, int], Awaitable[Sequence[RowT]]],
    view: Callable[[RowT], BaseModel],
    wanted: Callable[[RowT], bool] = lambda row: True,
    owner: Owner = JobRow,
) -> EventSourceResponse:
    """Return a response that streams the wanted rows above `after` as they are written; `newest` is the last number so far."""

    async def read(session: AsyncSession, seq: int) -> list[Line]:
        return [Line(row.seq, view(row).model_dump_json(), row) for row in await fetch(session, id, seq, BATCH)]

    stopping = anyio.Event()  # set when the server stops: the stream ends after a whole message, and the client resumes it
    feed = feeds.get(db, owner, id, fetch.__name__, max(min(after, newest), newest - BUFFERED_LINES), read)

    reader = caller_of(request).token_id or (counted_address(request.client.host) if request.client else "")
    return _CountedResponse(
        partial(feeds.counted, reader),
        _messages(db, feed, feeds.lagging_readers, after, read, wanted, stopping), ping=KEEPALIVE_SECONDS,
        shutdown_event=stopping, shutdown_grace_period=SHUTDOWN_GRACE_SECONDS,
    )


async def _messages(
    db: Database, feed: Feed, lagging_readers: asyncio.Semaphore, after: int, read: Read, wanted: Callable[[Any], bool],
    stopping: anyio.Event,
) -> AsyncIterator[ServerSentEvent]:
    while not stopping.is_set():
        await feed.refresh()
        ended, lines = feed.ended, feed.after(after)
        caught_up = lines is not None
        if lines is None:
            async with lagging_readers, db.read() as session:
                lines = await read(session, after)
        for line in lines:
            if wanted(line.row):
                yield ServerSentEvent(id=str(line.seq), data=line.data)
            after = line.seq
        if not caught_up and lines:
            continue
        if ended:
            return
        with anyio.move_on_after(POLL_SECONDS):
            await stopping.wait()
