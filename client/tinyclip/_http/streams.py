"""Server-sent events over lost connections: reopened with `Last-Event-ID`, without gap or repeat."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Generic

import httpx_sse

from tinyclip._http.calls import Call, ModelT, QueryValue, as_model
from tinyclip._http.retries import Patience, Retries
from tinyclip._http.transport import Transport
from tinyclip.errors import CannotReachServer, ProblemError


class Stream(Generic[ModelT]):
    """A reader's position in a stream of `model` documents."""

    def __init__(
        self,
        path: str,
        model: type[ModelT],
        after: int,
        retries: Retries,
        *,
        tail: int | None = None,
        query: Mapping[str, QueryValue] | None = None,
    ) -> None:
        self._path = path
        self._model = model
        self._tail = tail
        self._query = {**(query or {}), "tail": tail}
        self._last_id = after
        self.patience = Patience(retries)

    def call(self) -> Call[ModelT]:
        """Return the request that continues after the last event read."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id or self._tail is None:
            headers["Last-Event-ID"] = str(self._last_id)
        return Call("GET", self._path, as_model(self._model), headers=headers, query=self._query)

    def take(self, event: httpx_sse.ServerSentEvent) -> ModelT | None:
        """Return the event's document, or None for an event that is not numbered or was read before."""
        if not event.id.isdigit() or int(event.id) <= self._last_id:
            return None
        document = self._model.model_validate_json(event.data)
        self._last_id = int(event.id)
        self.patience.renew()
        return document


async def follow(
    transport: Transport, stream: Stream[ModelT], has_ended: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[ModelT, None]:
    """Yield documents until the server closes a stream whose subject had ended before the stream was opened."""
    ended = False
    while True:
        try:
            async with transport.stream(stream.call()) as response:
                async for event in transport.backend.events(response):
                    if (document := stream.take(event)) is not None:
                        yield document
        except (CannotReachServer, ProblemError) as failure:
            await transport.sleep(stream.patience.delay(failure))
            continue
        if ended:
            return
        ended = await has_ended()
