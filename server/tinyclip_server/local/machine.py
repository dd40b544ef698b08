"""Ports, paths and processes of this machine."""

import contextlib
import hashlib
import os
import random
import socket
import tempfile
from pathlib import Path

MARKER = "TINYCLIP_CLUSTER_OF"
"""Environment variable that every process of an embedded cluster inherits; its value names the data directory."""

PORTS = range(20_000, 30_000)
"""Ports that nothing else takes between their choice and their use: those of outgoing connections begin at 32768 by default, of
Ray's workers at 10002, of Serve's replicas at 30000."""
TRIES = 100


class PortTaken(Exception):
    """A port that cannot be bound."""


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket bound to an address. Raises `PortTaken`, naming the flag that chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}); choose another port with {flag}") from error
    return bound


def free_port(preferred: int = 0) -> int:
    """Return the preferred port of 127.0.0.1 if it is free, else another free one."""
    for port in ([preferred] if preferred else []) + random.sample(PORTS, TRIES):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise PortTaken(f"no port of 127.0.0.1 from {PORTS[0]} to {PORTS[-1]} is free")


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
