"""The caller of a request, determined once before the request is read, and the address that limits count."""

import ipaddress
from dataclasses import dataclass

from starlette.requests import Request
from tinyclip.schemas import Scope

DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Caller:
    """A project and the scopes that a request has in it."""

    project: str
    scopes: frozenset[Scope]
    token_id: str | None = None
    """None where the server requires no tokens."""

    def may(self, scope: Scope) -> bool:
        return scope.is_granted_by(self.scopes)


ANONYMOUS = Caller(DEFAULT_PROJECT, frozenset(Scope))
"""The caller of every request where the server requires no tokens."""


def caller_of(request: Request) -> Caller:
    """Return the request's caller; raise `AttributeError` for a request that did not pass the access gate."""
    found: Caller = request.state.caller
    return found


def counted_address(host: str) -> str:
    """Return the name under which requests and connections of an address are counted: the network of an IPv6 address.

    A machine has a /64 network at least, and could use another of its addresses for each request.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # as of a socket without a network
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
