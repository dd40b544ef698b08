"""The gate: no request passes without a token that allows it, but for a short list of paths.

It stands before the routes and knows none of them, so a route that is added later is guarded like all others: reading
methods need `read`, all others `write`, unless its path is named here. Paths are read as the routes read them, from the ASGI
scope: `request.url` is made of the Host header too, which the caller writes.
"""

import contextlib
import ipaddress
import re
import time

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tinyclip.schemas import Scope as TokenScope

from tinyclip_server.api.errors import problem_response
from tinyclip_server.http.callers import ANYBODY, Caller
from tinyclip_server.http.rates import Rates
from tinyclip_server.http.services import Services
from tinyclip_server.problems import ApiError, Forbidden, TooLarge, Unavailable
from tinyclip_server.tokens import service as tokens

OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
"""Asked by load balancers and by people who have no token yet; none of them shows anything of anybody's."""
ANY_TOKEN_PATHS = frozenset({"/v1/me"})
SCOPES_BY_PATH = {"/metrics": TokenScope.METRICS, "/v1/tokens": TokenScope.ADMIN}
"""These paths and all below them."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
UPLOADS = frozenset({"/v1/models/import"})
"""Bodies that go to a disk as they come, and are counted there."""
RECHECK_SECONDS = 5.0
"""How long an answer that goes on and on outlives its token."""


class Gate:
    """Middleware: tokens, scopes, rates and the size of bodies."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services
        self._rates = Rates(services.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        try:
            if scope["path"] not in OPEN_PATHS:
                scope.setdefault("state", {})["caller"] = await self._admit(request)
            receive = self._counted(request, receive)
        except ApiError as error:
            await problem_response(request, error)(scope, receive, send)
            return
        except (OperationalError, InterfaceError, PoolTimeout, ConnectionError):
            away = Unavailable("the database cannot be reached, so tokens cannot be checked; try again", retry_after=2)
            await problem_response(request, away)(scope, receive, send)
            return
        await self._app(scope, receive, self._watched(request, send))

    async def _admit(self, request: Request) -> Caller:
        """The caller, if it may do this. Raises Unauthorized, Forbidden, TooManyRequests."""
        settings = self._services.settings
        if settings.auth == "none":
            if not settings.allow_public:
                _expect_own_name(request)
            await self._rates.expect(_address(request))
            return ANYBODY
        async with self._rates.refusals(_address(request)):
            caller = await self._known(request)
        await self._rates.expect(caller.token_id or "")
        needed = scope_for(request.method, request.scope["path"])
        if needed is not None and not caller.may(needed):
            held = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"{request.method} {request.scope['path']} needs a token with scope {needed}; this one has {held}")
        return caller

    async def _known(self, request: Request) -> Caller:
        token = tokens.bearer(request.headers.get("authorization"))
        async with self._services.db.read() as session:
            return await tokens.caller(session, token)

    def _counted(self, request: Request, receive: Receive) -> Receive:
        """The body, cut off where it becomes larger than is taken. Raises TooLarge at once for one that says so itself."""
        most, seen = self._services.settings.max_body_bytes, 0
        if request.scope["path"] in UPLOADS:
            return receive
        message = f"the body is larger than {most:,} bytes; put what is large into files and name them by address"
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > most:
            raise TooLarge(message)

        async def receive_counted() -> Message:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > most:
                raise HTTPException(413, message)  # of those that read bodies, all pass this kind on
            return part

        return receive_counted

    def _watched(self, request: Request, send: Send) -> Send:
        """Ends a stream (events, logs) soon after its token was revoked or has expired."""
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None or caller.token_id is None:
            return send
        looked, cut = time.monotonic(), False

        async def send_while_valid(message: Message) -> None:
            nonlocal looked, cut
            if cut:
                return
            if message.get("more_body") and time.monotonic() - looked > RECHECK_SECONDS:
                looked = time.monotonic()
                cut = not await self._still_valid(request)
                if cut:
                    message = {**message, "body": b"", "more_body": False}
            await send(message)

        return send_while_valid

    async def _still_valid(self, request: Request) -> bool:
        # Of a database that is away the stream itself will tell: it reads the same one.
        with contextlib.suppress(OperationalError, InterfaceError, PoolTimeout, ConnectionError):
            try:
                await self._known(request)
            except ApiError:
                return False
        return True


def scope_for(method: str, path: str) -> TokenScope | None:
    """The scope that a request needs; null: any token will do."""
    if path in ANY_TOKEN_PATHS:
        return None
    for prefix, scope in SCOPES_BY_PATH.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return scope
    return TokenScope.READ if method in READING else TokenScope.WRITE


def _expect_own_name(request: Request) -> None:
    """A web page can have its own name mean this machine, and ask from the user's browser; its name is in the Host header.

    Raises Forbidden.
    """
    host = request.headers.get("host", "")
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name.strip("[]")).is_loopback:
            return
    if name.lower() != "localhost" and not name.lower().endswith(".localhost"):
        raise Forbidden(
            f"without tokens this server answers to localhost and 127.0.0.1 only, not to {name[:100] or 'no name'}; set "
            "TINYCLIP_AUTH=tokens, or TINYCLIP_ALLOW_PUBLIC=1 behind a proxy that authenticates", code="host_not_allowed",
        )


def _address(request: Request) -> str:
    return f"address {request.client.host}" if request.client else "address unknown"
