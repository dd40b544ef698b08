"""The check of addresses that users name.

http(s) addresses must be public ones, unless a setting allows this machine and private networks. No address may lead to the
service's own files, and all must lie below the roots that a setting names, if it names any. A host name is resolved twice: for a
readable error, and by the connection, which opens a socket only to a public address. So neither a name that changes its address
in between nor a redirect passes.
"""

import logging
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec.config
from tinyclip.addresses import ALLOW_PRIVATE, WEB, AddressRules, private_problem
from tinyclip.hosts import is_private

if TYPE_CHECKING:
    from aiohttp import AddrInfoType, ClientSession

log = logging.getLogger(__name__)


class AddressRefused(PermissionError):
    """An address that is not opened; the message names it, the reason and the remedy."""


class ServiceAddress(str):
    """An address that the service chose, which is opened without a check.

    Text from a document or a user is never one, and neither is text that is made from one: an address in a folder is made with
    `address_in`.
    """

    __slots__ = ()


def address_in(folder: str, name: str) -> str:
    """Return the address of a file in a folder; a `ServiceAddress` for the folder of one."""
    address = f"{folder.rstrip('/')}/{name}"
    return ServiceAddress(address) if isinstance(folder, ServiceAddress) else address


def guard_http() -> None:
    """Make fsspec use guarded connections for every http(s) file system of this process."""
    for scheme in WEB:
        fsspec.config.conf.setdefault(scheme, {})["get_client"] = guarded_client


def expect_address(address: str) -> None:
    """Check an address, unless it is a `ServiceAddress`. Raises AddressRefused."""
    if isinstance(address, ServiceAddress):
        return
    rules = address_rules()
    problem = rules.problem(address)
    if problem is None and address.partition("://")[0].lower() in WEB and not rules.allow_private:
        problem = _private_host(address)
    if problem is not None:
        raise AddressRefused(f"{address} {problem}")


def expect_place(address: str, opened: str) -> None:
    """Check the place that a driver opens for an address: it may read the address in its own way. Raises AddressRefused."""
    problem = address_rules().place_problem(opened)
    if problem is not None:
        raise AddressRefused(f"{address} {problem}")


def address_rules() -> AddressRules:
    """Return the rules that the server gave this process; none by default."""
    return AddressRules.from_environment(os.environ)


async def guarded_client(**options: Any) -> "ClientSession":
    """Return an HTTP client for fsspec that connects to allowed addresses only, with limits of size and time."""
    import aiohttp  # deferred: most addresses are local or s3

    from tinyclip_workers.runtime.http_limits import TIMEOUT, LimitedResponse

    connector = aiohttp.TCPConnector(socket_factory=_public_socket)
    return aiohttp.ClientSession(connector=connector, response_class=LimitedResponse, timeout=TIMEOUT, **options)


def _public_socket(info: "AddrInfoType") -> socket.socket:
    family, kind, protocol, _, target = info
    if not address_rules().allow_private and is_private(str(target[0])):
        log.warning("a connection to %s was refused: it is private", target[0])
        raise AddressRefused(f"{target[0]} is a private address; set {ALLOW_PRIVATE}=1 on the server to allow that")
    return socket.socket(family=family, type=kind, proto=protocol)


def _private_host(address: str) -> str | None:
    host = urlsplit(address).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        return "has a host name with an empty or a very long part; correct it"
    except OSError:
        return None  # opening it reports that there is no such host
    private = any(is_private(str(target[0])) for *_, target in found)
    return private_problem(host) if private else None
