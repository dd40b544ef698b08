"""Who may ask a deployment: the tokens whose digests the control plane has left in the artifacts store.

The server is never asked, so queries are answered while it is away. A revoked token is refused as soon as this replica has
read the list again.
"""

import asyncio
import logging
from datetime import UTC, datetime
from time import monotonic

from starlette.requests import Request
from tinyclip.schemas import Scope
from tinyclip.schemas.artifacts import TOKEN_DIGESTS, TokenDigest, TokenDigests
from tinyclip.token_format import digest, is_whole

from tinyclip_workers.runtime.store import Store
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.queries.problems import Refusal, refuse, route_path

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""How often the list is read, while there are requests."""
PATIENCE_SECONDS = 300.0
"""How long the last list is trusted while the store cannot be read; after that nobody is let in."""
OPEN_PATHS = frozenset({"/healthz", "/.well-known/live", "/.well-known/ready", "/openapi.json"})
OPEN_PAGE = "/"
"""The try-it page: nothing is in it but the form, which asks with the token that is typed in."""


class Access:
    """The list as last read."""

    def __init__(self, options: ServingOptions) -> None:
        self._options = options
        self._store = Store(options.artifacts) if options.auth == "tokens" else None
        self._tokens: dict[str, TokenDigest] = {}
        self._read_at = self._tried_at = float("-inf")
        self._turn = asyncio.Lock()

    async def expect(self, request: Request) -> None:
        """Raises Refusal for a request that may not ask this deployment."""
        if self._options.auth == "none" or is_open(request):
            return
        token = _bearer(request.headers.get("authorization"))
        await self._refresh()
        known = self._tokens.get(digest(token))
        if known is None:
            raise _unauthorized("token_unknown", "this token is not valid here: it was revoked, or has no scope infer")
        if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
            raise _unauthorized("token_expired", "this token has expired; ask an admin of its project for another")
        if known.project != self._options.project:
            name = self._options.name
            raise refuse(404, "no_such_deployment", "Not Found", f"there is no deployment {name} in project {known.project}")
        if not Scope.INFER.is_in(known.scopes):
            raise refuse(403, "forbidden", "Forbidden", "asking a deployment needs a token with scope infer")

    async def _refresh(self) -> None:
        """Read the list if it is due; many requests wait for one reading. Raises Refusal once it has become too old."""
        async with self._turn:
            if monotonic() - self._tried_at >= REFRESH_SECONDS:
                await asyncio.to_thread(self._read)
                self._tried_at = monotonic()
        if monotonic() - self._read_at > PATIENCE_SECONDS:
            detail = "the list of valid tokens cannot be read from the artifacts store; try again"
            raise refuse(503, "tokens_unavailable", "Service Unavailable", detail, retryable=True, headers={"Retry-After": "5"})

    def _read(self) -> None:
        assert self._store is not None
        try:
            self._tokens = TokenDigests.model_validate_json(self._store.read_bytes(TOKEN_DIGESTS)).tokens
        except FileNotFoundError:
            log.warning("there is no %s: nobody is let in until a server with TINYCLIP_AUTH=tokens runs", TOKEN_DIGESTS)
            self._tokens = {}
        except Exception as error:  # whatever a store far away raises: the last list stays, for a while
            log.warning("the list of tokens cannot be read: %s", error)
            return
        self._read_at = monotonic()


def is_open(request: Request) -> bool:
    """Whether anybody may ask this."""
    path = route_path(request)
    return path in OPEN_PATHS or (path in (OPEN_PAGE, "") and request.method in ("GET", "HEAD"))


def _bearer(header: str | None) -> str:
    kind, _, token = (header or "").strip().partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise _unauthorized("token_required", "a token is needed: send Authorization: Bearer tc_…")
    if not is_whole(token.strip()):
        raise _unauthorized("token_malformed", "this is not a whole token: a character is missing or wrong; copy it again")
    return token.strip()


def _unauthorized(code: str, detail: str) -> Refusal:
    return refuse(401, code, "Unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tinyclip"'})
