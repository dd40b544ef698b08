"""Opening files and stores: the addresses that users name after a check of where they lead, the service's own without one."""

from typing import Any

from fsspec.implementations.local import LocalFileSystem
from tinyclip.artifacts import remote
from tinyclip.artifacts.store import ArtifactsStore

from tinyclip_workers.runtime.addresses import ServiceAddress, expect_address, expect_place


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URI, and the path in it.

    Raises AddressRefused, an OSError, and ValueError naming what to install where the URI's scheme has no driver.
    """
    expect_address(address)
    fs, path = remote.open_filesystem(address)
    if not isinstance(address, ServiceAddress):
        expect_place(address, path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path)))
    return fs, path


def open_store(root: str, *, limit_s: float | None = None) -> ArtifactsStore:
    """Return a store of the files below a path or URI; `limit_s` limits its calls. Raises as `open_filesystem`."""
    open_filesystem(root)
    return ArtifactsStore(root, limit_s=limit_s)


def open_own_store(root: str, *, limit_s: float | None = None) -> ArtifactsStore:
    """Return a store of the service's own files: the artifacts store, or a folder in it."""
    return open_store(ServiceAddress(root), limit_s=limit_s)
