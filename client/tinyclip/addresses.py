"""Rules for the addresses of shards, class lists and weights: which URLs and local paths may be read."""

import ipaddress
import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "memory", "http", "https")
"""Schemes of file stores. Other schemes of the same drivers run code, open sessions or unpack archives inside archives."""
WEB = ("http", "https")
ALLOW_PRIVATE = "TINYCLIP_ALLOW_PRIVATE_URLS"
"""The environment variable of the setting, which is passed on to workers."""

DATA_ROOTS = "TINYCLIP_DATA_ROOTS"
"""The environment variable with the folders that local paths must lie in; unset: any path."""
READABLE_ROOTS = "TINYCLIP_READABLE_ROOTS"
"""The variable that passes them on to workers, as a JSON list, with the service's own folders added."""

_PATTERN = re.compile(r"[{*?\[]")
_RANGE = re.compile(r"\{\w+\.\.\w+(\.\.-?\d+)?\}")
_DOTS = re.compile(r"\.\.|(?:^|[{},/])\.(?=[{},/]|$)")
"""Dots that can become a step upwards once braces are expanded."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def address_problem(address: str, *, allow_private: bool) -> str | None:
    """Return why an address is refused, and what to do; None if it is acceptable before its host is resolved."""
    if "::" in re.sub(r"\[[^\]/]*\]", "", address):
        return "is a chain of addresses (::), which is not supported; name the file itself"
    scheme, mark, rest = address.partition("://")
    if not mark:
        return None
    if scheme.lower() not in SCHEMES:
        return f"has the scheme {scheme}://; use one of {', '.join(SCHEMES)}, or a local path"
    if scheme.lower() in WEB:
        return _web_problem(address, allow_private)
    return "has .. in its path; write the path without it" if ".." in rest.split("/") else None


def outside_problem(address: str, roots: Sequence[str]) -> str | None:
    """Return why a local path is refused, and what to do; None for a path below a root and for an address that is not local.

    `..` and symlinks are resolved first. For a pattern, the folder before its first brace or glob is checked; its
    matches are checked when they are opened.
    """
    path = _local_path(address)
    if path is None:
        return None
    if not path.startswith("/"):
        return f"is a relative path; give an absolute one below {' or '.join(roots)}"
    pattern = _PATTERN.search(path)
    if pattern is not None:
        folder, _, _ = path[: pattern.start()].rpartition("/")
        if _DOTS.search(_RANGE.sub("0", path[len(folder) :])):
            return "has dots after a brace or glob that may lead upwards; write it without"
        path = folder + "/"
    found = os.path.realpath(path)
    if any(_is_below(found, os.path.realpath(root)) for root in roots):
        return None
    leads = "" if found == path.rstrip("/") else f" (it leads to {found})"
    allowed = ", ".join(roots)
    return f"lies outside of the folders that may be read{leads}: {allowed}; move it there, or have {DATA_ROOTS} name its folder"


def _local_path(address: str) -> str | None:
    """Return the path of a local address; None for another. An address with an ambiguous scheme, as `{s3,x}://`, is local."""
    scheme, mark, rest = address.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z0-9+]+", scheme):
        return address
    return rest if scheme.lower() == "file" else None


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def is_private(ip: str) -> bool:
    """Return whether an IP address is not public: of this machine, a private network, or reserved.

    An IPv4 address embedded in IPv6 is checked too.
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return not address.is_global or address.is_multicast or any(ip4 and not ip4.is_global for ip4 in inner)


def private_problem(host: str) -> str:
    return f"is at {host}, in a private network or on this machine; set {ALLOW_PRIVATE}=1 on the server to allow that"


def _web_problem(address: str, allow_private: bool) -> str | None:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return "is not a URL"
    if not host:
        return "names no host"
    if parts.username is not None:
        return "has a user name or password in it, which others could read in the spec; leave it out"
    try:
        private = is_private(host)
    except ValueError:  # a name, which is resolved when the address is opened
        private = host == "localhost" or host.endswith(".localhost")
    return private_problem(host) if private and not allow_private else None
