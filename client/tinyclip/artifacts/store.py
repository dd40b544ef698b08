"""The artifacts store: whole files below a root, read and written through fsspec.

A file is either there with all its bytes or not there: local files are written aside and renamed, objects on S3 appear
when their upload ends. Nothing here checks where an address leads; callers that take addresses from users check them first.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoredFile:
    """One file as a listing shows it."""

    path: str
    """Relative to the store's root."""
    bytes: int
    modified_at: datetime


class ArtifactsStore:
    """A root (a local path or any fsspec URI) and the files below it by relative path."""

    def __init__(self, root: str) -> None:
        """Raises ValueError naming what to install where the URI's scheme has no driver."""
        from fsspec.implementations.local import LocalFileSystem  # comes with the extras

        self.root = root if root == "/" or root.endswith("://") else root.rstrip("/")
        self._fs, base = open_filesystem(self.root)
        self._base = base.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)
        """True for a folder of this machine or one that all nodes mount."""

    @property
    def filesystem(self) -> tuple[Any, str]:
        """fsspec's filesystem, and the root in it."""
        return self._fs, self._base

    def uri(self, path: str) -> str:
        """Return the full address of a file below the root."""
        return f"{self.root}/{path}"

    def local_path(self, path: str) -> Path | None:
        """Return where a file lies on this machine's disk, or None for a remote store."""
        return Path(self._full(path)) if self.is_local else None

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a whole file; after a kill it is the old one or the new one. Raises OSError naming the path."""
        if not self.is_local:
            self._fs.pipe_file(self._full(path), data)
            return
        with _written_aside(self._full(path), data) as aside:
            os.replace(aside, self._full(path))

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write a whole file that must not exist yet. Return False, with nothing written, if it does."""
        try:
            if not self.is_local:
                self._fs.pipe_file(self._full(path), data, mode="create")  # on S3 a conditional write: If-None-Match
                return True
            with _written_aside(self._full(path), data) as aside:
                os.link(aside, self._full(path))  # unlike a rename, this fails where the name is taken
        except FileExistsError:
            return False
        return True

    def read_bytes(self, path: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError."""
        data: Any = self._fs.cat_file(self._full(path))
        return bytes(data)

    def read_if_exists(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        try:
            return self.read_bytes(path)
        except FileNotFoundError:
            return None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a file. Raises FileNotFoundError."""
        data: Any = self._fs.cat_file(self._full(path), start=start, end=end)
        return bytes(data)

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._full(path)))

    def find(self, path: str) -> list[StoredFile]:
        """Return every file below a folder, sorted; none if there is no such folder."""
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._fs.find(self._full(path), detail=True)
        return [
            StoredFile(name.removeprefix(f"{self._base}/"), int(info["size"] or 0), self._modified_at(name, info))
            for name, info in sorted(found.items())
        ]

    def list(self, path: str) -> list[str]:
        """Return the sorted names of a folder's entries; none if there is no such folder."""
        self._fs.invalidate_cache()
        try:
            found: list[Any] = self._fs.ls(self._full(path), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with everything below it, if it exists."""
        self._fs.invalidate_cache()
        if self._fs.exists(self._full(path)):
            self._fs.rm(self._full(path), recursive=True)

    def copy(self, source: str, target: str) -> None:
        """Give a file that never changes another name: a hard link on a disk, a copy inside a remote store."""
        if not self.is_local:
            self._fs.cp_file(self._full(source), self._full(target))
            return
        place = Path(self._full(target))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(self._full(source), place)
        except OSError:  # a file system without links
            self.write_bytes(target, self.read_bytes(source))

    def get_file(self, path: str, target: Path) -> None:
        """Copy a file of the store to a local path. Raises FileNotFoundError."""
        self._fs.get_file(self._full(path), str(target))

    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file into the store; for large ones, which `write_bytes` would hold in memory. Not atomic on a disk."""
        self._fs.makedirs(self._full(path).rsplit("/", 1)[0], exist_ok=True)
        self._fs.put_file(str(source), self._full(path))

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _modified_at(self, name: str, info: dict[str, Any]) -> datetime:
        known = info.get("mtime") or info.get("LastModified") or self._fs.modified(name)
        return datetime.fromtimestamp(known, UTC) if isinstance(known, int | float) else known.astimezone(UTC)


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the filesystem of a path or URI, and the path in it. Listings are not cached: others write there too.

    Raises ValueError naming what to install where the URI's scheme has no driver.
    """
    import fsspec  # comes with the extras

    scheme = address.partition("://")[0] if "://" in address else "file"
    try:
        fs, path = fsspec.core.url_to_fs(address, **({} if scheme == "file" else {"use_listings_cache": False}))
    except ImportError as error:
        raise ValueError(f"{address} needs a driver for {scheme}:// ({error}); for s3:// pip install 'tinyclip[s3]'") from error
    return fs, str(path)


@contextlib.contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """Yield a flushed file beside its target, removed at the end unless it was renamed. Raises OSError naming the target."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    aside = f"{target}.{uuid.uuid4().hex}.tmp"
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    except OSError as error:  # the error of a full disk names no path
        raise OSError(error.errno, error.strerror, target) from error
    finally:
        Path(aside).unlink(missing_ok=True)
