"""Queries that are forwarded to a deployment, so that a browser needs this server only.

The body is passed on while it arrives, and so is the answer. The replica checks the caller's token itself, as for a query that is
sent to it directly.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tinyclip_server.backends.serve_proxy import UNREACHABLE, ServeProxy
from tinyclip_server.problems import ApiError, GatewayTimeout, InvalidInput, TooLarge, TooManyRequests, Unavailable

PASSED_ON = ("authorization", "content-type", "content-length", "accept", "accept-encoding")
"""Headers of a request that the deployment gets, beside the request's id."""
RETURNED = ("content-type", "content-length", "content-encoding", "retry-after", "www-authenticate")
"""Headers of an answer that the caller gets."""


class ForwardedQuery(Response):
    """The answer of a deployment to this request. `url` is the whole address there."""

    def __init__(self, proxy: ServeProxy, project: str, url: str) -> None:
        super().__init__()
        self._proxy, self._project, self._url = proxy, project, url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self._proxy.turn(self._project):
            answer = await self._answer(request)
            try:
                await _expect_deployment(answer)
                headers = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
                await StreamingResponse(answer.aiter_raw(), answer.status_code, headers)(scope, receive, send)
            finally:
                await answer.aclose()

    async def _answer(self, request: Request) -> httpx.Response:
        """Send the request; give it up if the client disconnects. Raises ApiError."""
        has_body, is_read = request.method not in ("GET", "HEAD"), asyncio.Event()
        if not has_body:
            is_read.set()
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        headers = {"accept-encoding": "identity", **headers, "x-request-id": request.state.request_id}
        if not has_body:
            headers.pop("content-length", None)
        body = _body(request, is_read) if has_body else None
        sending = asyncio.create_task(self._proxy.send(request.method, self._url, headers, body))
        watching = asyncio.create_task(_until_disconnected(request, is_read))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
            raise ClientDisconnect
        except ClientDisconnect as gone:
            raise InvalidInput("the request is incomplete; send it again", code="incomplete") from gone
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)


async def _body(request: Request, is_read: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises TooLarge, ClientDisconnect."""
    async for chunk in request.stream():
        if chunk:
            yield chunk
    is_read.set()


async def _until_disconnected(request: Request, is_read: asyncio.Event) -> None:
    await is_read.wait()
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _expect_deployment(answer: httpx.Response) -> None:
    """Raise what an error of Serve's proxy means; the errors of replicas are JSON, and are passed on. Raises ApiError."""
    if answer.status_code < 300 or "json" in answer.headers.get("content-type", ""):
        return
    raise _proxy_error(answer.status_code)


def _proxy_error(status: int) -> ApiError:
    if status == 429:
        return TooManyRequests("the deployment has too many requests; try again", code="busy", retry_after=2)
    if status in (408, 504):
        return GatewayTimeout("the deployment did not answer in time; send fewer or smaller items at once")
    if status == 413:
        return TooLarge("the request is too large for the proxy of the deployments")
    return Unavailable(f"{UNREACHABLE} (its proxy answered {status})", code="serve_unavailable", retry_after=2)


