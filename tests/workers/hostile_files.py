"""Files and servers that cost a reader far more than they should."""

import gzip
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 1 << 20


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """Return one header block of a tar; sizes from 8 GiB up, and negative ones, are written in base 256."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + padded(data)


def many_members(count: int) -> Iterator[bytes]:
    """Return as many small texts, with the header of one and other names: making each header takes seconds."""
    block = bytearray(header("000000.txt", 1))
    for number in range(count):
        block[:6] = b"%06d" % number
        yield checked(block) + padded(b"a")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def pax(records: dict[str, str]) -> bytes:
    """Return a PAX header with these records."""
    data = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + len(str(len(rest)))
        length += len(str(length)) - len(str(len(rest)))
        data += str(length).encode() + rest
    return header("pax", len(data), tarfile.XHDTYPE) + padded(data)


def sparse(name: str, *, packed: int, size: int, extended: bool = False) -> bytes:
    """Return the header of a sparse file of GNU tar."""
    assert size < 1 << 33, "has eleven octal digits"
    block = bytearray(header(name, packed, tarfile.GNUTYPE_SPARSE))
    block[482] = extended
    block[483:495] = b"%011o\0" % size
    return checked(block)


def checked(block: bytearray) -> bytes:
    """Return a header with its checksum corrected."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(2 * tarfile.BLOCKSIZE)


def with_hole(path: Path, start: bytes, size: int) -> str:
    """Write a file that begins with these bytes and goes on with zeros that take no place on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
    return str(path)


def zero_bomb(path: Path, start: bytes, size: int) -> str:
    """Write a gzip file that unpacks to these bytes and zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    return str(path)


@contextmanager
def server(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run an HTTP server on this machine that answers every GET with `answer`, and HEAD with 405. Yield its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the client has had enough
                self.close_connection = True

        def do_HEAD(self) -> None:
            self.send_error(405)

        def log_message(self, *arguments: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        listening.server_close()


def endless(request: http.server.BaseHTTPRequestHandler) -> None:
    """Answer with lines without end, and to a request for a range with a range without end."""
    ranged = "Range" in request.headers
    request.send_response(206 if ranged else 200)
    request.send_header("Content-Type", "text/html")
    if ranged:
        request.send_header("Content-Range", "bytes 0-99/100")
    request.end_headers()
    lines = b'<a href="x.tar">cat</a>\n' * 4000
    while True:
        request.wfile.write(lines)


def text_tar(samples: int, size: int) -> bytes:
    """Return a tar of samples with a text of that size."""
    file = io.BytesIO()
    for number in range(samples):
        file.write(member(f"{number:06d}.txt", b"x" * size))
    return file.getvalue() + END
