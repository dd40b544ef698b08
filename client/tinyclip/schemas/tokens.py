"""Tokens and their scopes."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tinyclip.schemas._base import Request, Response, Timestamp


class Scope(StrEnum):
    """A permission of a token within its project."""

    READ = "read"
    """Read everything, download models."""
    WRITE = "write"
    """Create, change and delete resources; includes `read`."""
    INFER = "infer"
    """Query deployments."""
    ADMIN = "admin"
    """All of the above, and create and revoke the project's tokens."""
    METRICS = "metrics"
    """`/metrics`, which covers all projects: no other scope includes it."""

    @property
    def includes(self) -> frozenset["Scope"]:
        """The scopes that this scope includes, itself among them."""
        more = {Scope.WRITE: {Scope.READ}, Scope.ADMIN: {Scope.READ, Scope.WRITE, Scope.INFER}}
        return frozenset({self, *more.get(self, set())})

    def is_granted_by(self, held: Iterable["Scope"]) -> bool:
        """Return whether any of the given scopes includes this one."""
        return any(self in scope.includes for scope in held)


ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class TokenPost(Request):
    name: str = Field(min_length=1, max_length=100)
    """Its purpose or owner."""
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_in_days: int | None = Field(default=90, ge=1, le=3650)
    """None: never."""


class Token(Response):
    """A token without its secret."""

    id: str
    name: str
    project: str
    scopes: list[Scope]
    hint: str
    """Its first characters."""
    state: Literal["active", "expired", "revoked"]
    created_by: str
    """The token that created it, or `shell` for `tinyclip-server create-token`."""
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None


class NewToken(Token):
    """A new token with its secret, which is not stored and cannot be shown again."""

    token: str = Field(repr=False)


class Me(Response):
    """The caller's identity."""

    auth: Literal["tokens", "none"]
    """`none`: the server requires no tokens."""
    project: str
    scopes: list[Scope]
    token: Token | None = None
