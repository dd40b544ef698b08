"""Checks of hosts: the Host header of requests without a token, and IP addresses that are not public."""

import contextlib
import ipaddress
import re
from collections.abc import Collection

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
"""All public IPv6 addresses, except for those that only stand for an IPv4 address."""
_IPV4_IN_IPV6 = (ipaddress.ip_network("::ffff:0:0/96"), ipaddress.ip_network("64:ff9b::/96"))
"""Mapped addresses, and those of NAT64, whose last 32 bits are the IPv4 address that is reached."""


def is_known_host(header: str, names: Collection[str] = ()) -> bool:
    """Return whether a Host header names this machine's loopback interface or is one of `names`, with any port.

    A web page can resolve its own name to this machine (DNS rebinding) and send requests from the user's browser. The header then
    has the page's name.
    """
    name = (header.rpartition(":")[0] if re.search(r":\d*$", header) else header).lower().strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback:
            return True
    return name == "localhost" or name.endswith(".localhost") or name in names


def is_private(ip: str) -> bool:
    """Return whether an IP address is not public: of this machine, a private network, or reserved.

    An IPv4 address embedded in IPv6 is checked too.
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _IPV4_IN_IPV6):
            return is_private(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        inner = (address.sixtofour, *(address.teredo or ()))
        if address not in _PUBLIC_IPV6 or any(ip4 is not None and is_private(str(ip4)) for ip4 in inner):
            return True
    return not address.is_global or address.is_multicast
