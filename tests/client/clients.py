"""Clients whose requests a function answers."""

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
from tinyclip import AsyncClient, Client, Retries

Handler = Callable[[httpx.Request], httpx.Response]

ONE_ATTEMPT = Retries(attempts=1)


def client_of(handler: Handler, retries: Retries = ONE_ATTEMPT) -> Client:
    return Client("http://server", "secret", retries=retries, transport=httpx.MockTransport(handler))


def async_client_of(handler: Handler, retries: Retries = ONE_ATTEMPT) -> AsyncClient:
    return AsyncClient("http://server", "secret", retries=retries, transport=httpx.MockTransport(handler))


class Recorder:
    """Answers with the given responses in turn, the last one repeatedly, and keeps the requests."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._responses = responses

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
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
