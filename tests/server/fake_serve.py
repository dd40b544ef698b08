"""A fake of Ray Serve's proxy, to which the control plane forwards queries."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from tinyclip_server.backends.serve_proxy import ServeProxy
from tinyclip_server.http.services import Services

from tests.server.service import Service

DOCUMENTS: dict[str, Any] = {
    "zero-shot": {"results": [[{"label": "a", "score": 1.0}]], "model": "m@1"},
    "embeddings": {"data": [{"index": 0, "embedding": [1.0]}], "model": "m@1"},
    "search": {"hits": [], "model": "m@1"},
    "healthz": {"status": "ok"},
    "label-sets": {"items": [{"name": "a", "labels": 1, "templates": 1}], "next_page_token": None},
}


class FakeServe(httpx.AsyncBaseTransport):
    """Ray Serve with one deployment, which answers as the test wants."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, json={"data": [], "model": "m@1"})
        self.held: asyncio.Event | None = None
        self.cancelled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        try:
            self.bodies.append(await request.aread())
            if self.held is not None:
                await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        answer = self.answer()
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Unread(answer.content))


class AnsweringServe(FakeServe):
    """Ray Serve whose deployments answer every query with a valid document."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        document = DOCUMENTS.get(request.url.path.rpartition("/")[2], {"name": "a", "labels": ["b"], "templates": ["{}"]})
        self.answer = lambda: httpx.Response(200, json=document)
        return await super().handle_async_request(request)


class Unread(httpx.AsyncByteStream):
    """The body of an answer that arrives in pieces."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 10):
            yield self._content[start : start + 10]


def reach(service: Service, serve: httpx.AsyncBaseTransport) -> None:
    services: Services = service.app.state.services
    object.__setattr__(services, "serve", ServeProxy(serve))
