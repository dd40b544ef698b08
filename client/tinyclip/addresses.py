"""What a user may name as the place of shards, class lists or weights: as far as the text tells, and where a local path leads."""

import ipaddress
import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "memory", "http", "https")
"""Stores of files. Others that the same drivers know run code, open sessions or unpack archives inside archives."""
WEB = ("http", "https")
ALLOW_PRIVATE = "TINYCLIP_ALLOW_PRIVATE_URLS"
"""The setting, and the variable by which workers are told of it."""

DATA_ROOTS = "TINYCLIP_DATA_ROOTS"
"""The setting: folders that local paths must lie in; none: any path will do."""
READABLE_ROOTS = "TINYCLIP_READABLE_ROOTS"
"""The variable by which workers are told of them, as a JSON list, with those of the service itself added."""

_PATTERN = re.compile(r"[{*?\[]")
_RANGE = re.compile(r"\{\w+\.\.\w+(\.\.-?\d+)?\}")
_DOTS = re.compile(r"\.\.|(?:^|[{},/])\.(?=[{},/]|$)")
"""What can become a step upwards once the braces are spelt out."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def address_problem(address: str, *, allow_private: bool) -> str | None:
    """Why an address is not used, and the way out; null if nothing speaks against it before its host is looked up."""
    if "::" in re.sub(r"\[[^\]/]*\]", "", address):
        return "is a chain of addresses (::), which is not followed; name the file itself"
    scheme, mark, rest = address.partition("://")
    if not mark:
        return None
    if scheme.lower() not in SCHEMES:
        return f"has the scheme {scheme}://; use one of {', '.join(SCHEMES)}, or a local path"
    if scheme.lower() in WEB:
        return _web_problem(address, allow_private)
    return "leaves its folder with ..; write the path without" if ".." in rest.split("/") else None


def outside_problem(address: str, roots: Sequence[str]) -> str | None:
    """Why a local path is not read, and the way out; null for one below a root, and for whatever is not local.

    `..` and symlinks are followed first. Of a pattern, the folder before its first brace or glob is looked at: what it
    finds there is looked at when it is opened.
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
            return "has dots that may lead upwards after a brace or glob; write it without"
        path = folder + "/"
    found = os.path.realpath(path)
    if any(_is_below(found, os.path.realpath(root)) for root in roots):
        return None
    leads = "" if found == path.rstrip("/") else f" (it leads to {found})"
    allowed = ", ".join(roots)
    return f"lies outside of the folders that may be read{leads}: {allowed}; move it there, or have {DATA_ROOTS} name its folder"


def _local_path(address: str) -> str | None:
    """The path of a local address; null for one elsewhere. What only may be an address elsewhere, as `{s3,x}://`, is local."""
    scheme, mark, rest = address.partition("://")
    if not mark or not re.fullmatch(r"[A-Za-z0-9+]+", scheme):
        return address
    return rest if scheme.lower() == "file" else None


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def is_private(ip: str) -> bool:
    """Whether an IP address is of this machine, of a private network, or otherwise not one of the public internet's.

    IPv6 can carry an IPv4 address inside; then that one counts too.
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
    except ValueError:  # a name: looked up by whoever opens it
        private = host == "localhost" or host.endswith(".localhost")
    return private_problem(host) if private and not allow_private else None
