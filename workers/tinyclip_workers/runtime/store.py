"""The artifacts store as the workers use it: whole files, read and written through fsspec.

A file is either there with all its bytes or not there: local files are written aside and renamed, objects on S3 appear
when their upload ends.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from tinyclip_workers.runtime.filesystems import open_filesystem


class Store:
    """A root (a local path or any fsspec URI) and files below it by relative path."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._fs, self._base = open_filesystem(self.root)
        self.is_local = isinstance(self._fs, LocalFileSystem)

    @property
    def filesystem(self) -> tuple[Any, str]:
        """fsspec's filesystem, and the root in it."""
        return self._fs, self._base

    def uri(self, path: str) -> str:
        """The full address of a file below the root."""
        return f"{self.root}/{path}"

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a whole file; a kill leaves the old one or the new one. Raises OSError naming the path."""
        target = f"{self._base}/{path}"
        if not self.is_local:
            self._fs.pipe_file(target, data)
            return
        with _written_aside(target, data) as aside:
            os.replace(aside, target)

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write a whole file that must not be there yet; False (and nothing written) if it is."""
        target = f"{self._base}/{path}"
        if not self.is_local:
            try:
                self._fs.pipe_file(target, data, mode="create")  # on S3 a conditional write: If-None-Match
            except FileExistsError:
                return False
            return True
        with _written_aside(target, data) as aside:
            try:
                os.link(aside, target)  # unlike a rename, this fails where the name is taken
            except FileExistsError:
                return False
        return True

    def read_bytes(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        data: bytes = self._fs.cat_file(f"{self._base}/{path}")
        return data

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(f"{self._base}/{path}"))

    def list(self, path: str) -> list[str]:
        """Names of what lies directly in a folder, sorted; nothing if there is no such folder."""
        self._fs.invalidate_cache()
        try:
            found: list[Any] = self._fs.ls(f"{self._base}/{path}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def remove(self, path: str) -> None:
        """Delete a file or a folder with all below it; nothing if it is not there."""
        target = f"{self._base}/{path}"
        if self._fs.exists(target):
            self._fs.rm(target, recursive=True)

    def local_path(self, path: str) -> Path | None:
        """Where a file lies on this machine's disk; null for a store elsewhere."""
        return Path(f"{self._base}/{path}") if self.is_local else None

    def copy(self, source: str, target: str) -> None:
        """Another name for a file that is never changed in place: a hard link on a disk, a copy inside the store elsewhere."""
        if not self.is_local:
            self._fs.cp_file(f"{self._base}/{source}", f"{self._base}/{target}")
            return
        place = Path(f"{self._base}/{target}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(f"{self._base}/{source}", place)
        except OSError:  # a file system without links
            self.write_bytes(target, self.read_bytes(source))

    def fetch(self, path: str, target: Path) -> None:
        """Copy one file of the store to a local path. Raises FileNotFoundError."""
        self._fs.get_file(f"{self._base}/{path}", str(target))

    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file into the store; for large ones, which `write_bytes` would hold in memory. Not atomic on a disk."""
        self._fs.makedirs(f"{self._base}/{path}".rsplit("/", 1)[0], exist_ok=True)
        self._fs.put_file(str(source), f"{self._base}/{path}")


@contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """A flushed file beside its target, gone at the end unless it was renamed. Raises OSError naming the target."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    aside = f"{target}.{uuid.uuid4().hex}.tmp"
    try:
        _write_flushed(aside, data, target)
        yield aside
    finally:
        Path(aside).unlink(missing_ok=True)


def _write_flushed(path: str, data: bytes, target: str) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # a full disk is reported by `write`, which knows no path
        raise OSError(error.errno, error.strerror, target) from error
