"""What a user may name as the place of shards, class lists or weights, as far as the text of it tells."""

import ipaddress
import re
from urllib.parse import urlsplit

SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "az", "memory", "http", "https")
"""Stores of files. Others that the same drivers know run code, open sessions or unpack archives inside archives."""
WEB = ("http", "https")
ALLOW_PRIVATE = "TINYCLIP_ALLOW_PRIVATE_URLS"
"""The setting, and the variable by which workers are told of it."""

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
