"""Files out of a tar stream that nobody vouches for: bounded in memory, and with names that stay inside their folder."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

MAX_MEMBER_BYTES = 256 << 20
"""Of one file inside, which is read into memory whole; a picture has a few millions at most."""
MAX_RATIO = 100
"""How many times its own size a compressed stream may unpack to, beyond ALWAYS_ALLOWED_BYTES: pictures hardly shrink at all."""
ALWAYS_ALLOWED_BYTES = 256 << 20
BLOCK = 1 << 16

_UNPACKERS: dict[re.Pattern[bytes], Any] = {
    re.compile(rb"\x1f\x8b\x08"): gzip.open,
    re.compile(rb"BZh[1-9]1AY&SY"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
}
_META = re.compile(r"__[^/]*__($|/)")
"""What WebDataset keeps beside samples."""


def read_members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each plain file of a tar (also compressed), in order; links, folders and devices are passed over.

    Raises tarfile.TarError for what is no tar, is cut off, names a file outside its folder, or unpacks to more than is
    taken; OSError or EOFError for a stream that breaks off.
    """
    with tarfile.open(fileobj=_Unpacked(file), mode="r|", bufsize=BLOCK) as tar:  # type: ignore[call-overload]
        for member in tar:
            if member.size > MAX_MEMBER_BYTES:
                raise tarfile.ReadError(f"{member.name} in it has {member.size:,} bytes, at most {MAX_MEMBER_BYTES:,} are read")
            if member.isreg() and not _META.match(member.name):
                _expect_inside(member.name)
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()
            tar.members = []  # a stream is not gone back in; without this every header stays in memory


def _expect_inside(name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise tarfile.ReadError(f"{name!r} in it is not a path inside a folder")


class _Unpacked:
    """The tar's own bytes, counted against those that came in."""

    def __init__(self, file: IO[bytes]) -> None:
        self._source = _Counted(file)
        packed = io.BufferedReader(self._source, BLOCK)
        start = packed.peek(16)
        unpacker = next((kind for magic, kind in _UNPACKERS.items() if magic.match(start)), None)
        self._file: Any = packed if unpacker is None else unpacker(packed)
        self._unpacked = 0

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except (zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(f"it is damaged: {error}") from error
        self._unpacked += len(data)
        if self._unpacked > ALWAYS_ALLOWED_BYTES + MAX_RATIO * self._source.count:
            raise tarfile.ReadError(f"it unpacks to more than {MAX_RATIO} times its size")
        return data


class _Counted(io.RawIOBase):
    """A readable stream that knows how much was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)
