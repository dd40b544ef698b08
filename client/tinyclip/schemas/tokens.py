"""Tokens and what they allow."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tinyclip.schemas._base import Request, Response, Timestamp


class Scope(StrEnum):
    """What a token may do within its project."""

    READ = "read"
    """Look at everything, download models."""
    WRITE = "write"
    """Submit, change and end things; reading is included."""
    INFER = "infer"
    """Ask deployments."""
    ADMIN = "admin"
    """All of the above, and make and revoke the project's tokens."""
    METRICS = "metrics"
    """`/metrics`, whose numbers are of all projects: no other scope includes it."""

    @property
    def includes(self) -> frozenset["Scope"]:
        """The scopes that one with this scope has."""
        more = {Scope.WRITE: {Scope.READ}, Scope.ADMIN: {Scope.READ, Scope.WRITE, Scope.INFER}}
        return frozenset({self, *more.get(self, set())})

    def is_in(self, held: Iterable["Scope"]) -> bool:
        """Whether holding these scopes is enough for this one."""
        return any(self in scope.includes for scope in held)


ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class TokenPost(Request):
    name: str = Field(min_length=1, max_length=100)
    """What it is for, or who has it."""
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    expires_in_days: int | None = Field(default=90, ge=1, le=3650)
    """null: never."""


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
    """The token that made it, or `shell` for `tinyclip-server create-token`."""
    created_at: Timestamp
    expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None


class NewToken(Token):
    """The only answer that has the secret: it is stored nowhere and cannot be shown again."""

    token: str = Field(repr=False)


class Me(Response):
    """Who the server takes the caller for."""

    auth: Literal["tokens", "none"]
    """`none`: the server asks nobody for a token."""
    project: str
    scopes: list[Scope]
    token: Token | None = None
