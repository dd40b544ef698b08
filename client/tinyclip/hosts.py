"""The check of the Host header by services that require no token: API and deployments."""

import contextlib
import ipaddress
import re
from collections.abc import Collection


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
