"""Free TCP ports."""

from tinyclip_server.local.machine import free_port


def free_ports(count: int) -> list[int]:
    """Return distinct ports that nothing listens on."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)
