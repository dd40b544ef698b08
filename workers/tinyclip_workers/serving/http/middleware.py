"""What every request goes through: an id, the gate, a time limit, an answer whatever happens, a line in the log."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinyclip_workers.serving.queries.problems import Refusal, answer_refusal, our_fault, refuse
from tinyclip_workers.serving.queries.timings import Asked, begin

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

LONGEST_ID = 64
CLIENT_LEFT = 499
"""In metrics and log, the status of a request whose client did not wait for its answer."""


class Requests:
    """The layer around the routes."""

    def __init__(self, app: ASGIApp, *, student: "Callable[[], Student]", tell_id: bool) -> None:
        """`tell_id`: answer with X-Request-Id; Serve's proxy does so itself, with the same id."""
        self._app, self._student, self._tell_id = app, student, tell_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Asked(_request_id(scope), scope["method"], scope["path"])
        begin(asked)
        scope.setdefault("state", {})["asked"] = asked
        if scope["path"] == scope.get("root_path", ""):  # {endpoint} itself, which no route can be
            scope["path"] += "/"

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                asked.status = message["status"]
                message["headers"] = [*message.get("headers", []), *self._told(asked)]
            await send(message)

        student = self._student()
        try:
            await self._answer(student, scope, receive, note)
        finally:
            asked.status = asked.status or CLIENT_LEFT
            student.watch.request(asked)

    def _told(self, asked: Asked) -> list[tuple[bytes, bytes]]:
        headers = {b"x-request-id": asked.request_id} if self._tell_id else {}
        if asked.model is not None:
            headers[b"x-tinyclip-model"] = asked.model
        return [(name, value.encode("latin-1")) for name, value in headers.items()]

    async def _answer(self, student: "Student", scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing but that the client has left, or that an answer broke off."""
        asked: Asked = scope["state"]["asked"]
        request = Request(scope, receive)
        limit = student.options.request_timeout_s
        try:
            async with asyncio.timeout(limit) as clock:
                await student.access.expect(request)
                await self._app(scope, receive, send)
            return
        except Exception as error:
            if asked.status:
                raise
            if isinstance(error, TimeoutError) and clock.expired():
                error = _too_slow(asked, limit)
            refused = isinstance(error, Refusal)
            answer = await answer_refusal(request, error) if refused else our_fault(request, error)
        await answer(scope, receive, send)


def _too_slow(asked: Asked, limit: float) -> Refusal:
    if "body" in asked.seconds and not asked.counts["bytes"]:
        detail = f"the request had not arrived whole after {limit:g} s; send fewer or smaller images in one request"
        return refuse(408, "request_too_slow", "Request timeout", detail, retryable=True)
    detail = f"not done after {limit:g} s, so what was left of it was dropped; try again, or ask for less in one request"
    return refuse(504, "timed_out", "Timed out", detail, retryable=True, headers={"Retry-After": "2"})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and value:
            return str(value.decode("latin-1"))[:LONGEST_ID]
    return f"req_{secrets.token_hex(12)}"
