"""Ports, paths and processes of this machine."""

import contextlib
import hashlib
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

MARKER = "TINYCLIP_CLUSTER_OF"
"""Environment variable that every process of an embedded cluster inherits; its value names the data directory."""

PORTS = range(20_000, 30_000)
"""Ports that are not assigned by others: those of outgoing connections begin at 32768 by default, of Ray's workers at 10002, of
Serve's replicas at 30000."""
TRIES = 100


class PortTaken(Exception):
    """A port that cannot be bound."""


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket bound to an address. Raises `PortTaken`, naming the flag that chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _closed_if_taken(bound, host, port, flag):
        bound.bind((host, port))
    return bound


def hold(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket that keeps a port for a program of the same user that binds it later with SO_REUSEPORT.

    As long as the socket or a copy of it is open, no other program can bind the port. It accepts no connections: they are
    refused until the program listens. Raises `PortTaken`.
    """
    # `listen` sets SO_REUSEADDR, since closed connections of an earlier program may have the port for a minute. With it two
    # sockets can bind a port, but only one can listen. When it has ceased to, it is still bound, and need not share any more.
    held = listen(host, port, flag)
    with _closed_if_taken(held, host, port, flag):
        held.listen()
    held.shutdown(socket.SHUT_RD)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def claim(port: int) -> socket.socket | None:
    """Return a socket that claims a port until it is closed; None if another service of this machine has claimed it.

    It is for a port that is bound seconds later, by a program that cannot share it as `hold` requires.
    """
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(f"\0tinyclip-port-{port}")  # in Linux's abstract namespace, which has no files
    except OSError:
        claimed.close()
        return None
    return claimed


def free_port(preferred: int = 0) -> int:
    """Return the preferred port of 127.0.0.1 if nothing listens on it, else a random one that no socket has."""
    for port in ([preferred] if preferred else []) + random.sample(PORTS, TRIES):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port == preferred)
            probe.bind(("127.0.0.1", port))
            return port
    raise PortTaken(f"no port of 127.0.0.1 from {PORTS[0]} to {PORTS[-1]} is free")


def free_ports(count: int) -> list[int]:
    """Return distinct free ports of 127.0.0.1."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


@contextlib.contextmanager
def _closed_if_taken(bound: socket.socket, host: str, port: int, flag: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        bound.close()
        raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}); choose another port with {flag}") from error


def short_path(wanted: Path, *, max_bytes: int) -> Path:
    """Return the path, or if it is longer than `max_bytes` bytes, a path derived from it in the system's temporary folder."""
    if len(os.fsencode(wanted)) <= max_bytes:
        return wanted
    name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tinyclip-{name}"


def marked_processes(value: str) -> set[int]:
    """Return the ids of the running processes whose environment has the marker with this value."""
    wanted = f"{MARKER}={value}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and not _is_zombie(folder):
                found.add(int(folder.name))
    return found


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
