"""The check of addresses that users name.

http(s) addresses must be public ones, unless a setting allows this machine and private networks. Local paths must lie below the
folders that a setting names, if it names any. A host name is resolved twice: for a readable error, and by the connection, which
opens a socket only to a public address. So neither a name that changes its address in between nor a redirect passes.
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
    """An address that is not opened; the message names it, the reason and the remedy."""


def guard_http() -> None:
    """Make fsspec use guarded connections for every http(s) file system of this process."""
    for scheme in WEB:
        fsspec.config.conf.setdefault(scheme, {})["get_client"] = guarded_client


def expect_address(address: str) -> None:
    """Check an address. Raises AddressRefused."""
    problem = address_problem(address, allow_private=_private_allowed())
    if problem is None and address.partition("://")[0].lower() in WEB and not _private_allowed():
        problem = _private_host(address)
    roots = _readable_roots()
    if problem is None and roots:
        problem = outside_problem(address, roots)
    if problem is not None:
        raise AddressRefused(f"{address} {problem}")


async def guarded_client(**options: Any) -> "ClientSession":
    """Return an HTTP client for fsspec that connects to allowed addresses only."""
    import aiohttp  # deferred: most addresses are local or s3

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
        return None  # opening it reports that there is no such host
    private = any(is_private(str(target[0])) for *_, target in found)
    return private_problem(host) if private else None


def _readable_roots() -> list[str]:
    """Return the folders that may be read, including those of downloads; none: all."""
    given: list[str] = json.loads(os.environ.get(READABLE_ROOTS) or "[]")
    return [*given, tempfile.gettempdir(), *_caches()] if given else []


def _caches() -> list[str]:
    """Return the cache folders of the libraries that download published weights."""
    from huggingface_hub.constants import HF_HUB_CACHE  # deferred, as above

    return [HF_HUB_CACHE, os.path.expanduser("~/.cache/clip")]


def _private_allowed() -> bool:
    return os.environ.get(ALLOW_PRIVATE, "").lower() in ("1", "true", "yes", "on")
