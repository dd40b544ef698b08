"""The middleware around every request: id, Host header, access control, time limit, an answer to every error, metrics, log."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tinyclip.hosts import is_known_host

from tinyclip_workers.serving.http.errors import internal_error, on_problem_error
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError, problem_error
from tinyclip_workers.serving.request_context import RequestContext, release_bytes, set_current

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

MAX_REQUEST_ID_CHARS = 64
CLIENT_CLOSED_REQUEST = 499
"""The status, in metrics and log, of a request whose client disconnected before the answer."""


class RequestMiddleware:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, *, get_replica: "Callable[[], Replica]", send_request_id: bool) -> None:
        """`send_request_id`: add X-Request-Id to answers. Serve's proxy adds the same id itself."""
        self._app, self._get_replica, self._send_request_id = app, get_replica, send_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(_request_id(scope), scope["method"])
        set_current(context)
        scope.setdefault("state", {})["context"] = context
        if scope["path"] == scope.get("root_path", ""):  # the endpoint itself without a slash, which no route can match
            scope["path"] += "/"

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = [*message.get("headers", []), *self._extra_headers(context)]
            await send(message)

        replica = self._get_replica()
        try:
            await self._answer(replica, scope, receive, send_and_record)
        finally:
            release_bytes(context)
            context.status = context.status or CLIENT_CLOSED_REQUEST
            replica.metrics.record_request(context)

    def _extra_headers(self, context: RequestContext) -> list[tuple[bytes, bytes]]:
        headers = {b"x-request-id": context.request_id} if self._send_request_id else {}
        if context.model is not None:
            headers[b"x-tinyclip-model"] = context.model
        if unknown := context.counts["unknown_tokens"]:
            headers[b"x-tinyclip-unknown-tokens"] = str(unknown)
        return [(name, value.encode("latin-1")) for name, value in headers.items()]

    async def _answer(self, replica: "Replica", scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, whatever is raised. Raises only after the response has started, or if the client disconnected."""
        context: RequestContext = scope["state"]["context"]
        request = Request(scope, receive)
        limit = replica.options.request_timeout_s
        try:
            async with asyncio.timeout(limit) as timeout:
                _expect_known_host(request, replica.options)
                await replica.access.check(request)
                await self._app(scope, receive, send)
            return
        except Exception as error:
            if context.status:
                raise
            if isinstance(error, TimeoutError) and timeout.expired():
                error = _too_slow(context, limit)
            is_problem = isinstance(error, ProblemError)
            response = await on_problem_error(request, error) if is_problem else internal_error(request, error)
        await response(scope, receive, send)


def _expect_known_host(request: Request, options: ServingOptions) -> None:
    """Raise ProblemError for the name of another site, which may have been resolved to this machine (DNS rebinding)."""
    host = request.headers.get("host", "")
    if options.auth == "none" and options.hosts is not None and not is_known_host(host, options.hosts):
        detail = (
            f"without tokens this deployment accepts the Host localhost or 127.0.0.1, not {host[:100] or 'an empty one'}; start "
            "the server with TINYCLIP_AUTH=tokens, or TINYCLIP_ALLOW_PUBLIC=1 behind a proxy that authenticates"
        )
        raise problem_error(403, "host_not_allowed", "Forbidden", detail)


def _too_slow(context: RequestContext, limit: float) -> ProblemError:
    if "body" in context.seconds and not context.counts["bytes"]:
        detail = f"the request had not arrived whole after {limit:g} s; send fewer or smaller images in one request"
        return problem_error(408, "request_too_slow", "Request timeout", detail, retryable=True)
    detail = f"not done after {limit:g} s, so the rest was dropped; try again, or send less in one request"
    return problem_error(504, "timed_out", "Timed out", detail, retryable=True, headers={"Retry-After": "2"})


def _request_id(scope: Scope) -> str:
    """Return the client's X-Request-Id, or a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and value:
            return str(value.decode("latin-1"))[:MAX_REQUEST_ID_CHARS]
    return f"req_{secrets.token_hex(12)}"
