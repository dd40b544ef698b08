"""The artifacts store: whole files below a root, read and written through fsspec.

A file is either there with all its bytes or not there: local files are written aside and renamed, objects on S3 appear
when their upload ends. What a call has written is durable when it returns. Nothing here checks where an address leads; callers
that take addresses from users check them first.
"""

import contextlib
import copy
import errno
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tinyclip.artifacts import disk
from tinyclip.artifacts.remote import Deadline, StoreUnavailable, call_remote, open_filesystem


@dataclass(frozen=True)
class StoredFile:
    """One file as a listing shows it."""

    path: str
    """Relative to the store's root."""
    bytes: int
    modified_at: datetime


class ArtifactsStore:
    """A root (a local path or any fsspec URI) and the files below it by relative path."""

    def __init__(self, root: str, *, limit_s: float | None = None) -> None:
        """`limit_s` limits each call to a remote store; without, calls wait for minutes while it is away.

        Transfers between files (`copy`, `get_file`, `put_file`) are not cut off while they make progress.

        Raises ValueError naming what to install where the URI's scheme has no driver.
        """
        from fsspec.asyn import AsyncFileSystem  # comes with the extras
        from fsspec.implementations.local import LocalFileSystem

        self.root = root if root == "/" or root.endswith("://") else root.rstrip("/")
        self._fs, base = open_filesystem(self.root)
        self._base = base.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)
        """True for a folder of this machine or one that all nodes mount."""
        self._limit_s = limit_s
        self._can_be_cut_off = isinstance(self._fs, AsyncFileSystem)
        self._end: Deadline | None = None

    def until(self, end: Deadline) -> "ArtifactsStore":
        """Return this store with one deadline for all calls: after it, no request begins, and no local file changes.

        A request that has begun by then may still take effect. Transfers between files have no deadline on a disk.
        """
        limited = copy.copy(self)
        limited._end = end
        return limited

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
        if self.is_local:
            disk.replace_file(Path(self._full(path)), data, check=self._check(path))
        else:
            self._call("pipe_file", path, data)

    def create_bytes(self, path: str, data: bytes) -> bool:
        """Write a whole file that must not exist yet. Return False, with nothing written, if it exists with other content.

        A file with the same content counts as this writer's own: the response to its first write may have been lost. Writers
        that could write equal content for different purposes include a nonce.
        """
        for _ in range(3):
            try:
                if self.is_local:
                    disk.create_file(Path(self._full(path)), data, check=self._check(path))
                else:
                    self._call("pipe_file", path, data, mode="create")  # on S3 a conditional write: If-None-Match
            except FileExistsError:
                existing = self.read_if_exists(path)
                if existing is not None:
                    return existing == data
            else:
                return True
        raise StoreUnavailable(errno.EIO, "exists and does not exist", self.uri(path))

    def read_bytes(self, path: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError."""
        return bytes(self._call("cat_file", path))

    def read_if_exists(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        try:
            return self.read_bytes(path)
        except FileNotFoundError:
            return None

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a file. Raises FileNotFoundError."""
        return bytes(self._call("cat_file", path, start=start, end=end))

    def exists(self, path: str) -> bool:
        return bool(self._call("exists", path))

    def find(self, path: str) -> list[StoredFile]:
        """Return every file below a folder, sorted; none if there is no such folder."""
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._call("find", path, detail=True)
        return [
            StoredFile(name.removeprefix(f"{self._base}/"), int(info["size"] or 0), self._modified_at(name, info))
            for name, info in sorted(found.items())
        ]

    def list(self, path: str) -> list[str]:
        """Return the sorted names of a folder's entries; none if there is no such folder."""
        self._fs.invalidate_cache()
        try:
            found: list[Any] = self._call("ls", path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with everything below it, if it exists. Raises OSError if some of it remains."""
        for _ in range(3):
            self._fs.invalidate_cache()
            if not self.exists(path):
                return
            with contextlib.suppress(FileNotFoundError):  # removed by another process, or before a response was lost
                if self.is_local:
                    disk.remove_tree(Path(self._full(path)), check=self._check(path))
                else:
                    self._call("rm", path, recursive=True)  # S3's driver ignores errors of single files
        if self.exists(path):
            raise StoreUnavailable(errno.EIO, "could not be removed completely", self.uri(path))

    def copy(self, source: str, target: str) -> None:
        """Give a file that never changes another name: a hard link on a disk, a copy inside a remote store."""
        if self.is_local:
            disk.link_file(Path(self._full(target)), Path(self._full(source)))
        else:
            self._call("cp_file", source, self._full(target), cut_off=False)

    def get_file(self, path: str, target: Path) -> None:
        """Copy a file of the store to a local path. Raises FileNotFoundError."""
        self._call("get_file", path, str(target), cut_off=False)

    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file into the store; for large ones, which `write_bytes` would hold in memory."""
        if self.is_local:
            disk.replace_file(Path(self._full(path)), source)
        else:
            put, full = self._fs.put_file, self._full(path)
            call_remote(put, self.uri(path), str(source), full, deadline=self._deadline(), cut_off=False)

    def _call(self, method: str, path: str, *arguments: Any, cut_off: bool = True, **options: Any) -> Any:
        """Call a method of the filesystem with a file's full path."""
        call, full = getattr(self._fs, method), self._full(path)
        if self.is_local:
            return call(full, *arguments, **options)
        deadline, cut_off = self._deadline(), cut_off and self._can_be_cut_off
        return call_remote(call, self.uri(path), full, *arguments, deadline=deadline, cut_off=cut_off, **options)

    def _deadline(self) -> Deadline | None:
        if self._end is not None or self._limit_s is None:
            return self._end
        return Deadline(self._limit_s)

    def _check(self, path: str) -> disk.Check:
        """Return the check before the name of a local file changes."""
        end = self._end
        return (lambda: None) if end is None else partial(end.check, self.uri(path))

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _modified_at(self, name: str, info: dict[str, Any]) -> datetime:
        known = info.get("mtime") or info.get("LastModified") or self._fs.modified(name)
        return datetime.fromtimestamp(known, UTC) if isinstance(known, int | float) else known.astimezone(UTC)
