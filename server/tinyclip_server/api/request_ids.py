"""An id for every request, its own or a new one, in the log and in the response."""

import logging
import re
import secrets

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from tinyclip_server.api.error_handlers import problem_response
from tinyclip_server.problems import ApiError

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
JOB_PATH = re.compile(r"/v1/jobs/([A-Za-z0-9_-]{1,64})")


class RequestIdMiddleware:
    """Gives each request an id, that of the caller if it is well-formed, and answers uncaught exceptions with a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        bind_contextvars(request_id=request_id, **_job_id(scope))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            if started:
                raise
            error = ApiError(f"the request failed because of an error in the server; its log has the cause under {request_id}")
            await problem_response(Request(scope), error)(scope, receive, send_with_id)


def _job_id(scope: Scope) -> dict[str, str]:
    """Return the job that a request is about, for the log."""
    found = JOB_PATH.match(scope["path"])
    return {"job_id": found[1]} if found else {}


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return "req_" + secrets.token_hex(8)
