"""The files of an untrusted tar stream: with bounded memory, and with names that stay inside their folder."""

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
"""Limit of one file inside, which is read into memory whole; an image has a few megabytes at most."""
MAX_RATIO = 100
"""Limit of the compression ratio beyond ALWAYS_ALLOWED_BYTES: images are compressed already."""
ALWAYS_ALLOWED_BYTES = 256 << 20
BLOCK = 1 << 16

_UNPACKERS: dict[re.Pattern[bytes], Any] = {
    re.compile(rb"\x1f\x8b\x08"): gzip.open,
    re.compile(rb"BZh[1-9]1AY&SY"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
}
_METADATA = re.compile(r"__[^/]*__($|/)")
"""Metadata of WebDataset, which is not part of any sample."""


def read_members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each plain file of a tar (also compressed), in order; links, folders and devices are skipped.

    Raises tarfile.TarError if it is not a tar, is truncated, names a file outside its folder, or exceeds a limit; OSError or
    EOFError if the stream ends early.
    """
    with tarfile.open(fileobj=_LimitedStream(file), mode="r|", bufsize=BLOCK) as tar:  # type: ignore[call-overload]
        for member in tar:
            if member.size > MAX_MEMBER_BYTES:
                raise tarfile.ReadError(f"{member.name} in it has {member.size:,} bytes, at most {MAX_MEMBER_BYTES:,} are read")
            if member.isreg() and not _METADATA.match(member.name):
                _expect_inside(member.name)
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()
            tar.members = []  # a stream cannot seek; without this every header stays in memory


def _expect_inside(name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name):
        raise tarfile.ReadError(f"{name!r} in it is not a path inside a folder")


class _LimitedStream:
    """The decompressed tar, with a limit on its ratio to the compressed bytes that were read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._source = _CountingReader(file)
        packed = io.BufferedReader(self._source, BLOCK)
        head = packed.peek(16)
        unpacker = next((kind for magic, kind in _UNPACKERS.items() if magic.match(head)), None)
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


class _CountingReader(io.RawIOBase):
    """A readable stream that counts the bytes read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)
