"""Opening the addresses that users name, after checking where they lead."""

from typing import Any

from tinyclip.artifacts import remote
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.addresses import expect_address


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URI, and the path in it.

    Raises AddressRefused, an OSError, and ValueError naming what to install where the URI's scheme has no driver.
    """
    expect_address(address)
    return remote.open_filesystem(address)


def open_store(root: str, *, limit_s: float | None = None) -> ArtifactsStore:
    """Return a store of the files below a path or URI; `limit_s` limits its calls. Raises as `open_filesystem`."""
    expect_address(root)
    return ArtifactsStore(root, limit_s=limit_s)
