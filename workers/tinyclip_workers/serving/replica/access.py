"""Access control of a deployment, by the token digests that the control plane writes to the artifacts store.

The server itself is not contacted, so queries are answered while it is down. A revoked token is rejected as soon as this
replica has read the list again. A thread reads it, so no query waits for the store.
"""

import logging
import threading
import time
import weakref
from datetime import UTC, datetime
from time import monotonic

from starlette.requests import Request
from tinyclip.artifacts.documents import TokenDigest, TokenDigests
from tinyclip.artifacts.paths import TOKEN_DIGESTS
from tinyclip.schemas import Scope
from tinyclip.token_format import digest, is_well_formed

from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import ProblemError, problem_error
from tinyclip_workers.serving.replica.store_calls import open_limited_store

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
"""Interval of reading the list."""
MAX_STALE_SECONDS = 300.0
"""Age up to which the last list is used while the store cannot be read; after that every request is rejected."""
OPEN_PATHS = frozenset({"/healthz", "/.well-known/live", "/.well-known/ready", "/openapi.json"})
OPEN_PAGE = "/"
"""The try-it page: it holds nothing but the form, whose queries send the token that the user enters."""


class Access:
    """The token digests as last read."""

    def __init__(self, options: ServingOptions) -> None:
        """Read the list, and from now on again every `REFRESH_SECONDS`, until this object is no longer used."""
        self._options = options
        self._tokens: dict[str, TokenDigest] = {}
        self._read_at = float("-inf")
        if options.auth == "tokens":
            self._store = open_limited_store(options.artifacts)
            self.refresh()
            threading.Thread(target=_refresh_repeatedly, args=(weakref.ref(self),), name="tokens", daemon=True).start()

    async def check(self, request: Request) -> None:
        """Raises ProblemError for a request that is not allowed."""
        if self._options.auth == "none" or is_open(request):
            return
        token = _bearer_token(request.headers.get("authorization"))
        self._check_age()
        known = self._tokens.get(digest(token))
        if known is None:
            raise _unauthorized("token_unknown", "this token is not valid here: it was revoked, or has no scope infer")
        if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
            raise _unauthorized("token_expired", "this token has expired; request another one from an admin of its project")
        if known.project != self._options.project:
            detail = f"there is no deployment {self._options.name} in project {known.project}"
            raise problem_error(404, "no_such_deployment", "Not Found", detail)
        if not Scope.INFER.is_granted_by(known.scopes):
            raise problem_error(403, "forbidden", "Forbidden", "querying a deployment needs a token with scope infer")

    def refresh(self) -> None:
        """Read the list. The last one remains in use if that fails."""
        started = monotonic()
        try:
            self._tokens = TokenDigests.model_validate_json(self._store.read_bytes(TOKEN_DIGESTS)).tokens
        except FileNotFoundError:
            log.warning("%s does not exist: every token is rejected until a server with TINYCLIP_AUTH=tokens runs", TOKEN_DIGESTS)
            self._tokens = {}
        except Exception as error:  # of any remote store: the last list is used for a while
            log.warning("the list of tokens cannot be read: %s", str(error))  # a record with the error would keep this object
            return
        self._read_at = started

    def _check_age(self) -> None:
        """Raises ProblemError once the list is too old."""
        if monotonic() - self._read_at > MAX_STALE_SECONDS:
            title, detail = "Service Unavailable", "the list of valid tokens cannot be read from the artifacts store; try again"
            raise problem_error(503, "tokens_unavailable", title, detail, retryable=True, headers={"Retry-After": "5"})


def _refresh_repeatedly(reference: "weakref.ref[Access]") -> None:
    while True:
        time.sleep(REFRESH_SECONDS)
        access = reference()
        if access is None:
            return
        access.refresh()
        del access


def is_open(request: Request) -> bool:
    """Return True for requests that need no token."""
    path = route_path(request)
    return path in OPEN_PATHS or (path in (OPEN_PAGE, "") and request.method in ("GET", "HEAD"))


def route_path(request: Request) -> str:
    """Return the path below the deployment's prefix. It is the router's: `request.url` is built from the Host header too."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def _bearer_token(header: str | None) -> str:
    kind, _, token = (header or "").strip().partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise _unauthorized("token_required", "a token is needed: send Authorization: Bearer tc_…")
    if not is_well_formed(token.strip()):
        raise _unauthorized("token_malformed", "this is not a whole token: a character is missing or wrong; copy it again")
    return token.strip()


def _unauthorized(code: str, detail: str) -> ProblemError:
    return problem_error(401, code, "Unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="tinyclip"'})
