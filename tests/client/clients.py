"""Clients whose requests a function answers, and the async client as if it were the sync one."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
from tinyclip import AsyncClient, AsyncStudent, Client, Retries
from tinyclip._http.methods import AsyncResource

Handler = Callable[[httpx.Request], httpx.Response]

Connect = Callable[..., Any]
"""The `connect` fixture: `client_of` or `async_client_of`."""

ONE_ATTEMPT = Retries(attempts=1)


def client_of(handler: Handler, retries: Retries = ONE_ATTEMPT) -> Client:
    return Client("http://server", "secret", retries=retries, transport=httpx.MockTransport(handler))


def async_client_of(handler: Handler, retries: Retries = ONE_ATTEMPT) -> Any:
    return Blocking(AsyncClient("http://server", "secret", retries=retries, transport=httpx.MockTransport(handler)))


class Blocking:
    """An `AsyncClient`, or a part of one, whose methods block: a test of the sync client runs with it too."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        if isinstance(value, AsyncResource):
            return Blocking(value)
        return (lambda *args, **kwargs: _result(value(*args, **kwargs))) if callable(value) else value


def _result(value: Any) -> Any:
    if inspect.isasyncgen(value):
        return iter(asyncio.run(_collect(value)))
    result = asyncio.run(value)
    return Blocking(result) if isinstance(result, AsyncStudent) else result


async def _collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


class Recorder:
    """Answers with the given responses in turn, the last one repeatedly, and keeps the requests."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._responses = responses

    def __call__(self, request: httpx.Request) -> httpx.Response:
        response = self._responses[min(len(self.requests), len(self._responses) - 1)]
        self.requests.append(request)
        if isinstance(response, Exception):
            raise response
        return response


class CutOff(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body of which only a part arrives."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")
