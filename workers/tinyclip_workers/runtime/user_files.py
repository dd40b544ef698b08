"""Files that users name: regular files only, with limits of size and time."""

import io
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from tinyclip_workers.runtime.addresses import ServiceAddress, expect_place
from tinyclip_workers.runtime.filesystems import open_filesystem

GRACE_SECONDS, MIN_BYTES_PER_SECOND = 60, 10_000
"""A remote file may cost this much waiting, and then so much more for what it has sent: below, it is refused as too slow."""
SMALL_FILE_SECONDS = 60
"""The most that a file that is read whole may take."""
SMALL_FILE_BLOCK = 1 << 20
_PIECE = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


class UnreadableFile(OSError):
    """A file that is not read; the message names it, the reason and the remedy."""


def open_file(address: str, *, block_bytes: int | None = None, seconds: float | None = None) -> IO[bytes]:
    """Open a file at a path or fsspec URI for reading.

    `block_bytes`: size of the requests for a remote file, by default its driver's; `seconds`: limit of all the time that is spent
    waiting for it. Raises AddressRefused, an OSError, and ValueError if its scheme has no driver; reading raises OSError only.
    """
    fs, path = open_filesystem(address)
    if isinstance(fs, LocalFileSystem):
        return _open_local(address, path)
    with store_errors(address):
        options = {} if block_bytes is None else {"block_size": block_bytes}
        return io.BufferedReader(_RemoteFile(fs.open(path, "rb", **options), address, seconds))


def read_file(address: str, limit: int) -> bytes:
    """Return the bytes of a small file. Raises as `open_file`, and UnreadableFile if it has more than `limit` bytes."""
    with open_file(address, block_bytes=SMALL_FILE_BLOCK, seconds=SMALL_FILE_SECONDS) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnreadableFile(f"{address} has more than the {limit:,} bytes that are read; name a smaller file")
    return data


class RangeReader:
    """Reads parts of files, in any number of threads.

    The local files that were read last stay open: to open one, with the checks of its address, takes longer than to read 64 KB.
    """

    def __init__(self, most_open: int) -> None:
        self._most_open, self._idle = most_open, OrderedDict[str, IO[bytes]]()
        self._lock = threading.Lock()

    def read(self, address: str, start: int, length: int) -> bytes:
        """Return a part; of a remote file by a single request. Raises as `open_file`, EOFError if the file is shorter."""
        with self._lock:
            file = self._idle.pop(address, None)
        if file is None:
            fs, path = open_filesystem(address)
            if not isinstance(fs, LocalFileSystem):
                with store_errors(address):
                    return _whole(address, fs.cat_file(path, start=start, end=start + length), start, length)
            file = _open_local(address, path)
        try:
            data = os.pread(file.fileno(), length, start)
            while len(data) < length and (more := os.pread(file.fileno(), length - len(data), start + len(data))):
                data += more
        finally:
            self._keep(address, file)
        return _whole(address, data, start, length)

    def close(self) -> None:
        """Close the files, once no thread reads any more."""
        while self._idle:
            self._idle.popitem()[1].close()

    def _keep(self, address: str, file: IO[bytes]) -> None:
        with self._lock:
            unneeded = [self._idle.pop(address)] if address in self._idle else []  # another thread has opened it, too
            self._idle[address] = file
            if len(self._idle) > self._most_open:
                unneeded.append(self._idle.popitem(last=False)[1])
        for each in unneeded:
            each.close()


def _whole(address: str, data: bytes, start: int, length: int) -> bytes:
    if len(data) != length:
        raise EOFError(f"{address} has {len(data):,} bytes from {start:,} on, not {length:,}")
    return data


@contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Convert the exceptions of a store's driver that are no OSError to OSError: those of HTTP clients, and of odd answers."""
    try:
        yield
    except (OSError, EOFError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{address} cannot be read ({type(error).__name__}: {error})") from error


def _open_local(address: str, path: str) -> IO[bytes]:
    """Open a regular file. Neither a pipe without a writer blocks, nor has a device an effect.

    The file that was opened is checked, not only the path: a link may have been replaced since. Raises AddressRefused.
    """
    _expect_regular(address, os.stat(path).st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _expect_regular(address, os.fstat(descriptor).st_mode)  # it may have been replaced in between
        opened = _path_of(descriptor)
        if opened is not None and not isinstance(address, ServiceAddress):
            expect_place(address, opened)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def opened_path(file: IO[bytes]) -> str | None:
    """Return a path that leads to an open local file, whatever its address leads to by now.

    None for a remote file, and on systems without /proc.
    """
    try:
        path = f"/proc/self/fd/{file.fileno()}"
    except OSError:  # a remote file has no descriptor
        return None
    return path if os.path.exists(path) else None


def _path_of(descriptor: int) -> str | None:
    """Return the path of an open file; None on systems without /proc."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def _expect_regular(address: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnreadableFile(f"{address} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}; name a regular file")


class _RemoteFile(io.RawIOBase):
    """A remote file that raises OSError if it is too slow or its driver fails."""

    def __init__(self, file: Any, address: str, seconds: float | None) -> None:
        self._file, self._address, self._limit = file, address, seconds
        self._waited, self._read = 0.0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with store_errors(self._address):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        started = time.monotonic()
        with store_errors(self._address):
            data: bytes = self._file.read(min(len(buffer), _PIECE))
        self._waited += time.monotonic() - started
        self._read += len(data)
        if self._waited > (self._limit or GRACE_SECONDS + self._read / MIN_BYTES_PER_SECOND):
            raise UnreadableFile(f"{self._address} is too slow: {self._read:,} bytes in {self._waited:.0f} s; use another copy")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
