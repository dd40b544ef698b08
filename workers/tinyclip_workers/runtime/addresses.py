"""Where addresses of users may lead: http(s) not onto this machine and not into private networks, unless a setting allows it;
local paths below the folders that a setting names, if it names any.

A name is looked up twice: once to say what is wrong in words, and once by the connection, whose socket is made only if the very
address that it goes to is a public one. So neither a name that changes its address in between nor a redirect gets past.
"""

import json
import logging
import os
import socket
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec.config
from tinyclip.addresses import (
    ALLOW_PRIVATE,
    READABLE_ROOTS,
    WEB,
    address_problem,
    is_private,
    outside_problem,
    private_problem,
)

if TYPE_CHECKING:
    from aiohttp import AddrInfoType, ClientSession

log = logging.getLogger(__name__)


class AddressRefused(PermissionError):
    """An address that is not opened on a user's word; the message names it and the way out."""


def guard() -> None:
    """Make every http(s) file system of this process a guarded one, whoever opens it."""
    for scheme in WEB:
        fsspec.config.conf.setdefault(scheme, {})["get_client"] = guarded_client


def expect_address(address: str) -> None:
    """Raises AddressRefused."""
    problem = address_problem(address, allow_private=_private_allowed())
    if problem is None and address.partition("://")[0].lower() in WEB and not _private_allowed():
        problem = _private_host(address)
    roots = _readable_roots()
    if problem is None and roots:
        problem = outside_problem(address, roots)
    if problem is not None:
        raise AddressRefused(f"{address} {problem}")


async def guarded_client(**options: Any) -> "ClientSession":
    """What fsspec makes its requests with."""
    import aiohttp  # comes with what needs it: most addresses are local or s3

    connector = aiohttp.TCPConnector(socket_factory=_public_socket)
    return aiohttp.ClientSession(connector=connector, **options)


def _public_socket(info: "AddrInfoType") -> socket.socket:
    family, kind, protocol, _, target = info
    if not _private_allowed() and is_private(str(target[0])):
        log.warning("a connection to %s was refused: it is private", target[0])
        raise AddressRefused(f"{target[0]} is a private address; set {ALLOW_PRIVATE}=1 on the server to allow that")
    return socket.socket(family=family, type=kind, proto=protocol)


def _private_host(address: str) -> str | None:
    host = urlsplit(address).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return None  # opening it will say that there is no such host
    private = any(is_private(str(target[0])) for *_, target in found)
    return private_problem(host) if private else None


def _readable_roots() -> list[str]:
    """The folders that may be read, with those where this process keeps what it has fetched; none: all."""
    given: list[str] = json.loads(os.environ.get(READABLE_ROOTS) or "[]")
    return [*given, tempfile.gettempdir(), *_caches()] if given else []


def _caches() -> list[str]:
    """Of the libraries that fetch published weights."""
    from huggingface_hub.constants import HF_HUB_CACHE  # comes with what needs it, as above

    return [HF_HUB_CACHE, os.path.expanduser("~/.cache/clip")]


def _private_allowed() -> bool:
    return os.environ.get(ALLOW_PRIVATE, "").lower() in ("1", "true", "yes", "on")
