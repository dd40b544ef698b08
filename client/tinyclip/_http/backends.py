"""The I/O of both clients behind one async interface.

Everything above a backend is async code, written once. `BlockingBackend` blocks where `AsyncBackend` suspends, so a coroutine
that uses it completes in its first step, and `run` needs no event loop for it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

import httpx
import httpx_sse
from httpx_sse import ServerSentEvent

from tinyclip._http.uploads import Upload

T = TypeVar("T")


class Backend(Protocol):
    """The operations of a transport that block a thread or suspend a task."""

    async def request(self, arguments: dict[str, Any], upload: Upload | None) -> httpx.Response: ...

    def stream(self, arguments: dict[str, Any]) -> AbstractAsyncContextManager[httpx.Response]: ...

    async def read(self, response: httpx.Response) -> None: ...

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]: ...

    def events(self, response: httpx.Response) -> AsyncIterator[ServerSentEvent]: ...

    async def sleep(self, seconds: float) -> None: ...

    async def close(self) -> None: ...


class BlockingBackend:
    """A backend that blocks its thread and never suspends."""

    def __init__(self, transport: httpx.BaseTransport | None) -> None:
        self._http = httpx.Client(transport=transport)

    async def request(self, arguments: dict[str, Any], upload: Upload | None) -> httpx.Response:
        return self._http.request(**arguments, content=None if upload is None else upload.pieces())

    @contextlib.asynccontextmanager
    async def stream(self, arguments: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        with self._http.stream(**arguments) as response:
            yield response

    async def read(self, response: httpx.Response) -> None:
        response.read()

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        return _BlockingIterator(response.iter_bytes())

    def events(self, response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
        return _BlockingIterator(httpx_sse.EventSource(response).iter_sse())

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 -- it blocks on purpose

    async def close(self) -> None:
        self._http.close()


class AsyncBackend:
    """A backend for asyncio."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None) -> None:
        self._http = httpx.AsyncClient(transport=transport)

    async def request(self, arguments: dict[str, Any], upload: Upload | None) -> httpx.Response:
        return await self._http.request(**arguments, content=None if upload is None else upload.pieces_async())

    def stream(self, arguments: dict[str, Any]) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(**arguments)

    async def read(self, response: httpx.Response) -> None:
        await response.aread()

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        return response.aiter_bytes()

    def events(self, response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
        return httpx_sse.EventSource(response).aiter_sse()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self._http.aclose()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that uses a `BlockingBackend`."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a coroutine of the sync client suspended")


class _BlockingIterator(Generic[T]):
    """An async iterator over an iterator that blocks."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        for item in self._items:
            return item
        raise StopAsyncIteration
