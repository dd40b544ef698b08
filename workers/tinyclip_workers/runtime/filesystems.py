"""Opening the addresses that users name, after checking where they lead."""

from typing import Any

from tinyclip.artifacts import store as artifacts

from tinyclip_workers.runtime.addresses import expect_address


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URI, and the path in it.

    Raises AddressRefused, an OSError, and ValueError naming what to install where the URI's scheme has no driver.
    """
    expect_address(address)
    return artifacts.open_filesystem(address)


def open_store(root: str) -> artifacts.ArtifactsStore:
    """Return a store of the files below a path or URI. Raises as `open_filesystem`."""
    expect_address(root)
    return artifacts.ArtifactsStore(root)
