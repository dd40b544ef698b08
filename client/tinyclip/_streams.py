"""Server-sent events that survive a lost connection: reopened with `Last-Event-ID`, without gap or repeat."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic

import httpx_sse

from tinyclip._calls import Call, ModelT, as_model
from tinyclip._retry import Patience, Retries
from tinyclip._transport import AsyncTransport, Transport
from tinyclip.errors import CannotReachServer, ProblemError


class Stream(Generic[ModelT]):
    """Where a reader is in a stream, and how what it reads is understood."""

    def __init__(self, path: str, model: type[ModelT], after: int, retries: Retries, *, tail: int | None = None) -> None:
        self._path = path
        self._model = model
        self._tail = tail
        self.last_id = after
        self.patience = Patience(retries)

    def call(self) -> Call[ModelT]:
        """The request that goes on after the last event read."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_id or self._tail is None:
            headers["Last-Event-ID"] = str(self.last_id)
        return Call("GET", self._path, as_model(self._model), headers=headers, query={"tail": self._tail})

    def take(self, event: httpx_sse.ServerSentEvent) -> ModelT | None:
        """The event's document, or None for one that was read before or is not numbered."""
        if not event.id.isdigit() or int(event.id) <= self.last_id:
            return None
        document = self._model.model_validate_json(event.data)
        self.last_id = int(event.id)
        self.patience.renew()
        return document


def follow(transport: Transport, stream: Stream[ModelT], ended: Callable[[], bool]) -> Iterator[ModelT]:
    """Reads until the server closes the stream of something that had already ended when the stream was opened."""
    was_ended = False
    while True:
        try:
            with transport.stream(stream.call()) as response:
                for event in httpx_sse.EventSource(response).iter_sse():
                    if (document := stream.take(event)) is not None:
                        yield document
        except (CannotReachServer, ProblemError, httpx_sse.SSEError) as failure:
            stream.patience.sleep(_reachable(transport.base_url, failure))
            continue
        if was_ended:
            return
        was_ended = ended()


async def follow_async(
    transport: AsyncTransport, stream: Stream[ModelT], ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[ModelT]:
    """Reads until the server closes the stream of something that had already ended when the stream was opened."""
    was_ended = False
    while True:
        try:
            async with transport.stream(stream.call()) as response:
                async for event in httpx_sse.EventSource(response).aiter_sse():
                    if (document := stream.take(event)) is not None:
                        yield document
        except (CannotReachServer, ProblemError, httpx_sse.SSEError) as failure:
            await stream.patience.sleep_async(_reachable(transport.base_url, failure))
            continue
        if was_ended:
            return
        was_ended = await ended()


def _reachable(url: str, failure: Exception) -> Exception:
    """An answer that is no event stream comes from something between us and the server."""
    return CannotReachServer(url, str(failure)) if isinstance(failure, httpx_sse.SSEError) else failure
