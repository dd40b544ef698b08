"""The artifacts store as the server uses it. Every call runs in a thread: a store may be far away."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

READ_CHUNK = 1 << 20

Names = list[str]


def _open_filesystem(root: str) -> tuple[Any, str]:
    """Without listings kept from earlier: workers write there too. ValueError names what to install."""
    scheme = root.partition("://")[0] if "://" in root else "file"
    try:
        fs, base = fsspec.core.url_to_fs(root, **({} if scheme == "file" else {"use_listings_cache": False}))
    except ImportError as error:
        raise ValueError(f"artifacts {root}: {error}; for s3:// pip install 'tinyclip[s3]'") from error
    return fs, str(base)


@contextlib.contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """A flushed file beside its target, gone at the end unless it was renamed. Raises OSError naming the target."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    aside = f"{target}.{uuid.uuid4().hex}.tmp"
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    except OSError as error:  # a full disk is reported by `write`, which knows no path
        raise OSError(error.errno, error.strerror, target) from error
    finally:
        Path(aside).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredFile:
    path: str
    """Relative to the store's root."""
    bytes: int
    modified_at: datetime


StoredFiles = list[StoredFile]


class Store:
    """A root (a local path or any fsspec URI) and files below it by relative path."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fs, base = _open_filesystem(root)
        self._base = base.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine (or one that all nodes mount)."""
        return self._local

    def uri(self, path: str) -> str:
        """The full address of a file below the root."""
        return f"{self.root}/{path}"

    async def write(self, path: str, data: bytes) -> None:
        """Write a whole file: a reader sees the old one or the new one. Raises OSError naming the path."""
        await asyncio.to_thread(self._write, f"{self._base}/{path}", data)

    async def create(self, path: str, data: bytes) -> bool:
        """Write a whole file that must not be there yet, as workers do; False (and nothing written) if it is."""
        return await asyncio.to_thread(self._create, f"{self._base}/{path}", data)

    async def read(self, path: str) -> bytes | None:
        """A file's bytes, or null if it is not there."""
        return await asyncio.to_thread(self._read, f"{self._base}/{path}", None, None)

    async def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file. Raises FileNotFoundError."""
        data = await asyncio.to_thread(self._read, f"{self._base}/{path}", start, end)
        if data is None:
            raise FileNotFoundError(self.uri(path))
        return data

    async def exists(self, path: str) -> bool:
        return bool(await asyncio.to_thread(self._fs.exists, f"{self._base}/{path}"))

    async def list(self, path: str) -> Names:
        """Names of what lies directly in a folder, sorted; nothing if there is no such folder."""
        return await asyncio.to_thread(self._list, f"{self._base}/{path}")

    async def find(self, path: str) -> StoredFiles:
        """Every file below a folder; none if it is not there."""
        return await asyncio.to_thread(self._find, path)

    async def remove(self, path: str) -> None:
        """Delete a file or a folder with all below it; nothing if it is not there."""
        await asyncio.to_thread(self._remove, f"{self._base}/{path}")

    def _write(self, target: str, data: bytes) -> None:
        if not self._local:
            self._fs.pipe_file(target, data)
            return
        with _written_aside(target, data) as aside:
            os.replace(aside, target)

    def _create(self, target: str, data: bytes) -> bool:
        try:
            if not self._local:
                self._fs.pipe_file(target, data, mode="create")  # on S3 a conditional write: If-None-Match
                return True
            with _written_aside(target, data) as aside:
                os.link(aside, target)  # unlike a rename, this fails where the name is taken
        except FileExistsError:
            return False
        return True

    def _read(self, target: str, start: int | None, end: int | None) -> bytes | None:
        try:
            data: Any = self._fs.cat_file(target, start=start, end=end)
        except FileNotFoundError:
            return None
        return bytes(data)

    def _list(self, target: str) -> Names:
        self._fs.invalidate_cache()
        try:
            found: Names = self._fs.ls(target, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def _find(self, path: str) -> StoredFiles:
        self._fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._fs.find(f"{self._base}/{path}", detail=True)
        return [
            StoredFile(name.removeprefix(f"{self._base}/"), int(info["size"] or 0), self._modified(name, info))
            for name, info in sorted(found.items())
        ]

    def _modified(self, name: str, info: dict[str, Any]) -> datetime:
        known = info.get("mtime") or info.get("LastModified") or self._fs.modified(name)
        return datetime.fromtimestamp(known, UTC) if isinstance(known, int | float) else known.astimezone(UTC)

    def _remove(self, target: str) -> None:
        self._fs.invalidate_cache()
        if self._fs.exists(target):
            self._fs.rm(target, recursive=True)
