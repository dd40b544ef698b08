"""Who asks: decided once, before anything of the request is read."""

from dataclasses import dataclass

from starlette.requests import Request
from tinyclip.schemas import Scope

DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Caller:
    """What a request may see and do."""

    project: str
    scopes: frozenset[Scope]
    token_id: str | None = None
    """null where no token is asked for."""

    def may(self, scope: Scope) -> bool:
        return scope.is_granted_by(self.scopes)


ANYBODY = Caller(DEFAULT_PROJECT, frozenset(Scope))
"""Every caller of a server that asks for no tokens."""


def caller_of(request: Request) -> Caller:
    """The request's caller. A request that nobody let in has none, and fails here."""
    found: Caller = request.state.caller
    return found
