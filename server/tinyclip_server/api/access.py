"""The access gate: every request needs a token with the right scope, except for a short list of paths.

It runs before the routes and knows none of them, so a new route is protected like all others: reading methods need `read`,
all others `write`, unless the path is listed here, as those of queries, which need `infer`. Paths are those of the ASGI scope, as
the routes match them; `request.url` also depends on the Host header, which the caller controls.
"""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tinyclip.hosts import is_known_host
from tinyclip.schemas import Scope as TokenScope
from tinyclip.schemas.inference import MAX_QUERY_BYTES

from tinyclip_server.api.error_handlers import problem_response
from tinyclip_server.api.rate_limits import RateLimits
from tinyclip_server.http.callers import ANONYMOUS, Caller, counted_address
from tinyclip_server.http.services import Services
from tinyclip_server.problems import ApiError, Forbidden, TooLarge, TooManyRequests, Unavailable
from tinyclip_server.tokens import service as tokens

OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json"})
"""Paths for load balancers and for users without a token yet; none of them shows data of a project."""
DETAILED_PATHS = frozenset({"/readyz"})
"""Open paths that show more to callers with a token."""
ANY_TOKEN_PATHS = frozenset({"/v1/me", "/readyz"})
SCOPES_BY_PATH = {"/metrics": TokenScope.METRICS, "/v1/tokens": TokenScope.ADMIN}
"""Scopes of these paths and all below them."""
INFER_MAY_READ = re.compile(r"/v1/indexes/[^/]+/items/.+")
"""Paths that a token with `infer` but without `read` may read: items, which its searches show anyway."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
UPLOADS = frozenset({"/v1/models/import"})
"""Paths whose bodies, unless they are JSON, are written to a disk as they arrive, and are limited there."""
LARGE_BODIES = re.compile(r"/v1/indexes/[^/]+/items")
"""Paths whose bodies hold images and vectors."""
QUERIES = re.compile(r"/v1/deployments/[^/]+/(zero-shot|embeddings|search|health|label-sets(/[^/]+)?)$")
"""Paths that are forwarded to deployments. Their bodies are passed on as they arrive, and are as large as a replica accepts."""
DOCUMENT_BYTES = 4 << 20
"""Largest body of all other requests. Class lists of ImageNet-21k have 0.6 MiB."""
BODIES_AT_ONCE = 8
"""Number of largest bodies that fit into the memory for all bodies that are being received or processed."""
RECHECK_SECONDS = 5.0
"""How often a streamed response checks that its token is still valid."""


class AccessGate:
    """Middleware that checks tokens, scopes, rate limits and the size of bodies."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services
        self._limits = RateLimits(services.settings)
        self._bodies = _Bodies(BODIES_AT_ONCE * services.settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the API has no WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        try:
            if scope["path"] not in OPEN_PATHS or self._may_show_more(request):
                scope.setdefault("state", {})["caller"] = await self._admit(request)
            receive = self._limited(request, receive)
        except ApiError as error:
            await problem_response(request, error)(scope, receive, send)
            return
        except (OperationalError, InterfaceError, PoolTimeout, ConnectionError):
            unavailable = Unavailable("the database cannot be reached, so tokens cannot be checked; try again", retry_after=2)
            await problem_response(request, unavailable)(scope, receive, send)
            return
        with self._bodies.released_after(request):
            await self._app(scope, receive, self._checked(request, send))

    def _may_show_more(self, request: Request) -> bool:
        """Return whether an open path is requested that shows more to an identified caller."""
        has_token = self._services.settings.auth == "tokens" and "authorization" in request.headers
        return has_token and request.scope["path"] in DETAILED_PATHS

    async def _admit(self, request: Request) -> Caller:
        """Return the caller of a request. Raises Unauthorized, Forbidden, TooManyRequests."""
        settings = self._services.settings
        if settings.auth == "none":
            if not settings.allow_public:
                _expect_local_host(request)
            await self._limits.count(_address(request))
            return ANONYMOUS
        async with self._limits.count_refusals(_address(request)):
            token = tokens.bearer(request.headers.get("authorization"))
            async with self._limits.count_token(token, _address(request)):
                caller = await self._caller(token)
        needed = scope_for(request.method, request.scope["path"])
        instead = infer_suffices(request.method, request.scope["path"])
        if needed is not None and not caller.may(needed) and not (instead and caller.may(TokenScope.INFER)):
            held, either = ", ".join(sorted(caller.scopes)), f"{needed} or infer" if instead else str(needed)
            raise Forbidden(f"{request.method} {request.scope['path']} needs a token with scope {either}; this one has {held}")
        return caller

    async def _caller(self, token: str) -> Caller:
        async with self._services.db.read() as session:
            return await tokens.caller(session, token)

    def _limited(self, request: Request, receive: Receive) -> Receive:
        """Return a `receive` that raises above the limits of size. Raises TooLarge at once if Content-Length is above it."""
        path, kind = request.scope["path"], request.headers.get("content-type", "")
        if path in UPLOADS and "json" not in kind.lower():
            return receive
        limit, is_forwarded = self._services.settings.max_body_bytes, QUERIES.match(path) is not None
        if is_forwarded:
            limit = MAX_QUERY_BYTES
        elif not LARGE_BODIES.fullmatch(path):
            limit = min(limit, DOCUMENT_BYTES)
        received = 0
        message = f"the body is larger than {limit:,} bytes; put large data into files and give their addresses"
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise TooLarge(message)

        async def receive_limited() -> Message:
            nonlocal received
            part = await receive()
            size = len(part.get("body", b""))
            received += size
            if received > limit:
                raise TooLarge(message)
            if not is_forwarded:
                self._bodies.add(request, size)
            return part

        return receive_limited

    def _checked(self, request: Request, send: Send) -> Send:
        """Return a `send` that ends a stream soon after its token was revoked or has expired."""
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None or caller.token_id is None:
            return send
        checked_at, ended = time.monotonic(), False

        async def send_while_valid(message: Message) -> None:
            nonlocal checked_at, ended
            if ended:
                return
            if message.get("more_body") and time.monotonic() - checked_at > RECHECK_SECONDS:
                checked_at = time.monotonic()
                ended = not await self._still_valid(request)
                if ended:
                    message = {**message, "body": b"", "more_body": False}
            await send(message)

        return send_while_valid

    async def _still_valid(self, request: Request) -> bool:
        # The stream itself reports a database that is unavailable: it reads the same one.
        with contextlib.suppress(OperationalError, InterfaceError, PoolTimeout, ConnectionError):
            try:
                await self._caller(tokens.bearer(request.headers.get("authorization")))
            except ApiError:
                return False
        return True


class _Bodies:
    """The bytes of all bodies in memory, with an upper limit, half of which one project may have where there are several."""

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._sizes, self._projects = Counter[int](), Counter[str]()

    def add(self, request: Request, size: int) -> None:
        """Count bytes of a request. Raises Unavailable above the limit, TooManyRequests above its project's share."""
        if self._total + size > self._limit:
            raise Unavailable("the server is receiving too many large requests; try again", retry_after=1)
        project = _project(request)
        if project is not None and self._projects[project] + size > self._limit // 2:
            raise TooManyRequests("this project sends too many large requests at once; try again", retry_after=1)
        self._sizes[id(request)] += size
        self._total += size
        if project is not None:
            self._projects[project] += size

    @contextlib.contextmanager
    def released_after(self, request: Request) -> Iterator[None]:
        try:
            yield
        finally:
            size, project = self._sizes.pop(id(request), 0), _project(request)
            self._total -= size
            if project is not None:
                self._projects[project] -= size
                if not self._projects[project]:
                    del self._projects[project]


def scope_for(method: str, path: str) -> TokenScope | None:
    """Return the scope that a request needs; None if any token will do."""
    if path in ANY_TOKEN_PATHS:
        return None
    for prefix, scope in SCOPES_BY_PATH.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return scope
    if QUERIES.match(path):  # as routes are matched
        return TokenScope.INFER
    return TokenScope.READ if method in READING else TokenScope.WRITE


def infer_suffices(method: str, path: str) -> bool:
    """Return whether a token with `infer` may make a request that needs `read`."""
    return method in READING and INFER_MAY_READ.fullmatch(path) is not None


def _expect_local_host(request: Request) -> None:
    """Raise Forbidden unless the Host header names this machine: it may be that of another site (DNS rebinding)."""
    host = request.headers.get("host", "")
    if not is_known_host(host):
        raise Forbidden(
            f"without tokens this server accepts the Host localhost or 127.0.0.1, not {host[:100] or 'an empty one'}; set "
            "TINYCLIP_AUTH=tokens, or TINYCLIP_ALLOW_PUBLIC=1 behind a proxy that authenticates", code="host_not_allowed",
        )


def _project(request: Request) -> str | None:
    """Return the project of a request's token; None if it has none."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller.project if caller is not None and caller.token_id is not None else None


def _address(request: Request) -> str:
    return f"address {counted_address(request.client.host)}" if request.client else "address unknown"
