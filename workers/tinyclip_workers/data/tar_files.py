"""The files of an untrusted tar stream: with bounded memory, and a damaged or unsafe file only costs itself.

Headers are decoded by `tarfile.TarInfo.frombuf`. `tarfile.TarFile` is not used: it reads extended headers of any size into
memory, follows chains of them recursively, seeks beyond the end of a stream for ever, and ends silently at a damaged header.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from tinyclip_workers.data.tar_streams import BLOCK, PIECE, LimitedStream

MAX_MEMBER_BYTES = 64 << 20
"""Limit of one file inside, which is read into memory whole; an image has a few megabytes at most."""
MAX_HEADER_BYTES = 1 << 20
"""Limit of an extended header, which holds a long name and attributes."""
MAX_NAME = 4096
"""Limit of the characters of a name."""
MAX_LOST_BYTES = 256 << 20
"""Limit of what is skipped to find the next header after a damaged one."""
_METADATA = re.compile(r"__[^/]*__($|/)")
"""Metadata of WebDataset, which is not part of any sample."""
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]{1,1000})=")
"""The start of a record of a PAX header: its length and its key."""
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


@dataclass(frozen=True)
class Unread:
    """A file of a tar that was not read."""

    reason: str


class Member(NamedTuple):
    """A plain file of a tar, and its place in the decompressed tar."""

    name: str
    content: bytes | Unread
    start: int
    """Offset of its first header."""
    end: int
    """Offset after its content and padding."""


def read_members(file: IO[bytes]) -> Iterator[Member]:
    """Yield each plain file of a tar (also compressed), in order; links, folders and devices are skipped.

    A file that is too large, sparse, outside the archive's folder or has an invalid header is `Unread`; after a damaged header,
    reading continues at the next valid one, and the name is "". Raises tarfile.TarError if it is not a tar, is truncated or
    unpacks to far more than its size; OSError or EOFError if the stream ends early.
    """
    stream = LimitedStream(file)
    for entry in _read_entries(stream):
        if entry is None:
            yield Member("", Unread("a header in the tar is damaged"), stream.position, stream.position)
        elif not entry.info.isreg() or _METADATA.match(entry.name):
            stream.skip(_padded(entry.size) if entry.info.isreg() or entry.info.type not in tarfile.SUPPORTED_TYPES else 0)
        elif problem := entry.problem or _problem(entry.info, entry.name, entry.size):
            stream.skip(_padded(entry.size))
            yield Member(entry.name[:MAX_NAME], Unread(problem), entry.start, stream.position)
        else:
            content = stream.read_exactly(entry.size)
            stream.skip(_padded(entry.size) - entry.size)
            yield Member(entry.name, content, entry.start, stream.position)


def read_entries(file: IO[bytes]) -> Iterator["Entry"]:
    """Yield the entries of an uncompressed tar, of any kind and size; the caller reads each one before the next.

    Raises tarfile.TarError if it is not a tar, is damaged or truncated.
    """
    for entry in _read_entries(LimitedStream(file, unpack=False)):
        if entry is None:
            raise tarfile.ReadError("a header in it is damaged")
        yield entry


@dataclass(frozen=True)
class Entry:
    """A file, link, folder or device in a tar."""

    info: tarfile.TarInfo
    name: str
    size: int
    problem: str
    """What is wrong with its extended header, or ""."""
    start: int
    """Offset of its first header, which may be an extended one."""
    _stream: "LimitedStream"

    @property
    def is_plain(self) -> bool:
        """True for a file with all its bytes."""
        return self.info.isreg() and self.info.type != tarfile.GNUTYPE_SPARSE

    def read(self) -> Iterator[bytes]:
        """Yield the content of a plain file in pieces. Raises tarfile.ReadError if it is truncated."""
        left = self.size
        while left > 0:
            piece = self._stream.read_exactly(min(left, PIECE))
            left -= len(piece)
            yield piece
        self._stream.skip(_padded(self.size) - self.size)


def _read_entries(stream: "LimitedStream") -> Iterator[Entry | None]:
    """Yield the entries, whose bytes the caller reads or skips; None for damaged headers. Raises tarfile.ReadError."""
    extended, start = _Extended(), None
    for found in _read_headers(stream):
        if found is None:
            yield None
            continue
        info, block = found
        start = stream.position - tarfile.BLOCKSIZE if start is None else start
        if info.type in _EXTENDED:
            extended.read(info, stream)
            continue
        header, extended = extended, _Extended()
        if info.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(stream, block)
        size = info.size if header.size is None else header.size
        yield Entry(info, header.name or info.name, size, header.problem, start, stream)
        start = None


def _read_headers(stream: "LimitedStream") -> Iterator[tuple[tarfile.TarInfo, bytes] | None]:
    """Yield the headers; None for each run of blocks that are skipped because they are none. Raises tarfile.ReadError."""
    started, lost = False, 0
    while block := stream.read(tarfile.BLOCKSIZE):
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is truncated")
        if not lost and not any(block):
            stream.read(BLOCK)  # to the checksum of compressed data, unless there is more padding
            return
        try:
            info = _plain_header(block) or tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if info.size < 0:
                raise tarfile.ReadError("the size of a file is negative")
        except tarfile.TarError as error:
            if not started:
                raise tarfile.ReadError(f"it is not a tar: {error}") from error
            lost += tarfile.BLOCKSIZE
            if lost > MAX_LOST_BYTES:
                raise tarfile.ReadError(f"it has no header within {MAX_LOST_BYTES:,} bytes of a damaged one") from error
            continue
        if lost:
            yield None
        started, lost = True, 0
        yield info, block
    if not started and not lost:
        raise tarfile.ReadError("it is empty")
    if lost:
        yield None


def _plain_header(block: bytes) -> tarfile.TarInfo | None:
    """Decode the usual header of a plain file, in a third of the time of `frombuf`. Returns None for any other."""
    name = block[:100].partition(b"\0")[0]
    if block[156] not in b"0\0" or block[257:262] != b"ustar" or block[345] or not name or name.endswith(b"/"):
        return None  # another kind, an old format, a prefix of the name, or a folder
    size, checksum = block[124:135], block[148:154]
    if not size.isdigit() or block[135] not in b"\0 " or not checksum.isdigit():
        return None
    try:
        if int(checksum, 8) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            return None
        info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
        info.size = int(size, 8)
    except ValueError:  # 8 or 9 among the digits
        return None
    return info


def _problem(info: tarfile.TarInfo, name: str, size: int) -> str:
    """Return why a file is not read, or "" if it can be."""
    if info.type == tarfile.GNUTYPE_SPARSE:
        return "it is a sparse file"
    if size > MAX_MEMBER_BYTES:
        return f"it has {size:,} bytes, at most {MAX_MEMBER_BYTES:,} are read"
    if len(name) > MAX_NAME:
        return f"its name has {len(name):,} characters, at most {MAX_NAME:,} are read"
    outside = name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name)
    return "its name is not a path inside a folder" if outside else ""


def _skip_sparse_map(stream: "LimitedStream", block: bytes) -> None:
    """Skip the blocks that continue the map of a sparse file of GNU tar; a byte in each one marks that another one follows."""
    extended = bool(block[482])
    while extended:
        extended = bool(stream.read_exactly(tarfile.BLOCKSIZE)[504])


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


@dataclass
class _Extended:
    """The extended headers before a file, which replace its name and size."""

    name: str | None = None
    size: int | None = None
    problem: str = ""

    def read(self, info: tarfile.TarInfo, stream: "LimitedStream") -> None:
        if info.size > MAX_HEADER_BYTES:
            self.problem = f"its header has {info.size:,} bytes, at most {MAX_HEADER_BYTES:,} are read"
        if info.size > MAX_HEADER_BYTES or info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            stream.skip(_padded(info.size))
            return
        data = stream.read_exactly(_padded(info.size))[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            self.name = _text(data.split(b"\0", 1)[0])
        else:
            self._read_records(data)

    def _read_records(self, data: bytes) -> None:
        at = 0
        while at < len(data) and data[at]:  # some writers pad with zeros
            match = _RECORD.match(data, at)
            end = at + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(data):
                self.problem = "its header is damaged"
                return
            self._apply(match[2], data[match.end() : end - 1])
            at = end

    def _apply(self, key: bytes, value: bytes) -> None:
        if key.startswith(b"GNU.sparse."):
            self.problem = "it is a sparse file"
        if key in (b"path", b"GNU.sparse.name"):
            self.name = _text(value)
        elif key == b"size":
            if re.fullmatch(rb"[0-9]{1,19}", value):
                self.size = int(value)
            else:
                self.problem = "its size is not a number"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
