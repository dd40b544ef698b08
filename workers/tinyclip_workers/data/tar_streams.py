"""Reading a tar that may be compressed: with bounded memory, and not much more than its size."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from typing import IO, Any

MAX_RATIO = 100
"""Limit of the compression ratio beyond ALWAYS_ALLOWED_BYTES: images are compressed already."""
ALWAYS_ALLOWED_BYTES = 256 << 20
BLOCK = 1 << 16
PIECE = 1 << 20
"""The most bytes that are requested from the stream at once: decompressors and remote files hold several times as much."""
XZ_MEMORY = 96 << 20
"""Limit of xz's dictionary; its largest preset needs 65 MiB."""

_XZ = re.compile(rb"\xfd7zXZ\x00")
_UNPACKERS: dict[re.Pattern[bytes], Any] = {
    re.compile(rb"\x1f\x8b\x08"): gzip.open,
    re.compile(rb"BZh[1-9]1AY&SY"): bz2.open,
    _XZ: lambda file: io.BufferedReader(_XzReader(file), BLOCK),
}


def is_compressed(head: bytes) -> bool:
    """Return whether a file with these first bytes is unpacked by `LimitedStream`."""
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"))


class LimitedStream:
    """The decompressed tar, with a limit on its ratio to the compressed bytes that were read."""

    def __init__(self, file: IO[bytes], *, unpack: bool = True) -> None:
        self._source = _CountingReader(file)
        packed = io.BufferedReader(self._source, BLOCK)
        head = packed.peek(16)
        unpacker = next((kind for magic, kind in _UNPACKERS.items() if unpack and magic.match(head)), None)
        self._file: Any = packed if unpacker is None else unpacker(packed)
        self._unpacked = 0

    @property
    def position(self) -> int:
        """Bytes of the decompressed tar that were read."""
        return self._unpacked

    def read(self, size: int) -> bytes:
        """Return at most PIECE bytes; fewer than `size` only at the end.

        Raises tarfile.ReadError if it is damaged or unpacks to too much; OSError or EOFError if it ends early.
        """
        try:
            data: bytes = self._file.read(min(size, PIECE))
        except (zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(f"it is damaged: {error}") from error
        self._unpacked += len(data)
        if self._unpacked > ALWAYS_ALLOWED_BYTES + MAX_RATIO * self._source.count:
            raise tarfile.ReadError(f"it unpacks to more than {MAX_RATIO} times its size")
        return data

    def read_exactly(self, size: int) -> bytes:
        """Return that many bytes. Raises tarfile.ReadError if there are fewer."""
        if size <= PIECE:
            data = self.read(size)
        else:
            buffer = io.BytesIO()
            while buffer.tell() < size and (piece := self.read(size - buffer.tell())):
                buffer.write(piece)
            data = buffer.getvalue()
        if len(data) < size:
            raise tarfile.ReadError("it is truncated")
        return data

    def skip(self, size: int) -> None:
        """Read and drop that many bytes. Raises tarfile.ReadError if there are fewer."""
        while size > 0:
            count = len(self.read(min(size, PIECE)))
            if count == 0:
                raise tarfile.ReadError("it is truncated")
            size -= count


class _CountingReader(io.RawIOBase):
    """A readable stream that counts the bytes read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), PIECE))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _XzReader(io.RawIOBase):
    """The content of xz data, unpacked with limited memory, which `lzma.LZMAFile` cannot limit."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._decoder = packed, _xz_decoder()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises lzma.LZMAError, or EOFError if the data is truncated."""
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._decoder.unused_data or self._packed.read(BLOCK)
                if not packed.strip(b"\0"):  # the end, or padding
                    return 0
                self._decoder = _xz_decoder()
            elif self._decoder.needs_input:
                packed = self._packed.read(BLOCK)
                if not packed:
                    raise EOFError("the compressed data is truncated")
            data = self._decoder.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
