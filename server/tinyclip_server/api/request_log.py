"""Counts, durations and log lines of requests."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars, clear_contextvars

from tinyclip_server.http.metrics import Metrics, route_of

logger = logging.getLogger(__name__)

PROBE_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Requested by machines every few seconds, and logged only if they fail."""


class RequestLogMiddleware:
    """Counts, times and logs every request; the query is left out, since it may hold private data."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clear_contextvars()  # requests of one connection share a context
        began, first, status = time.monotonic(), 0.0, 0

        async def note(message: Message) -> None:
            nonlocal first, status
            if message["type"] == "http.response.start":
                first, status = time.monotonic() - began, message["status"]
            await send(message)

        try:
            with self._metrics.in_progress.track_inprogress():
                await self._app(scope, receive, note)
        finally:
            if status:
                self._metrics.request(scope, status, first)
                self._log(scope, status, time.monotonic() - began)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        level = logging.DEBUG if scope["path"] in PROBE_PATHS and status < 500 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        ms = round(1000 * seconds, 1)
        with bound_contextvars(method=scope["method"], route=route_of(scope), status=status, duration_ms=ms):
            logger.log(level, "%s %.500s %d", scope["method"], scope["path"], status)
