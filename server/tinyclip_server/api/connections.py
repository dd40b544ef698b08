"""Limits of HTTP connections that uvicorn does not have: their number, and the time and size of each part of a request.

A client that connects and sends nothing, or half a request, or does not read its answer, would occupy a file descriptor and
memory for as long as it likes. Each part has a deadline here; above a limit a connection is refused with 503 or 429.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tinyclip_server.http.callers import counted_address


@dataclass
class ConnectionLimits:
    """The limits, and the connections that are open. For one event loop."""

    connections: int
    """Connections at once."""
    per_address: int
    """Connections at once from one address, or one IPv6 network."""
    head_seconds: float = 10.0
    """Time from the first byte of a request, or from the connection, to the end of its headers."""
    body_seconds: float = 20.0
    """Interval in which at least `body_bytes` of a body must arrive, while the server reads it."""
    body_bytes: int = 10_000
    write_seconds: float = 60.0
    """Time in which a client must read what is buffered for it, some 64 KiB."""
    head_bytes: int = 64 << 10
    """Bytes of the request line with all headers."""
    pipelined: int = 16
    """Requests that a connection may send before the first of them is answered."""
    linger_seconds: float = 0.5
    """Time that a refused client has to read the answer; what it still sends is not read."""
    lingering: int = 64
    """Refused connections that are kept for that; others may lose the answer."""
    open: Counter[str] = field(default_factory=Counter)
    """Connections by address."""


def protocol_with(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """Return uvicorn's protocol for HTTP with these limits. It cannot be upgraded to WebSockets: configure `ws="none"`."""
    return functools.partial(BoundedProtocol, limits=limits)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, with limits."""

    def __init__(self, *args: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._address: str | None = None
        """The address under which this connection is counted; None if it is not."""
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._head_bytes = self._body_bytes = self._bytes_beside_body = 0
        self._in_head = self._in_body = False
        self._refused = self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = counted_address(self.client[0]) if self.client else "unknown"
        if self._limits.open.total() >= self._limits.connections:
            self._refuse(503, "the server has too many connections; try again", retry_after=1)
        elif self._limits.open[address] >= self._limits.per_address:
            self._refuse(429, "this address has too many connections; close some, or try again", retry_after=1)
        else:
            self._address = address
            self._limits.open[address] += 1
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._count_no_longer()
        self._limits.lingering += self._lingers
        self._lingers = False
        self._cancel()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._deadline is None and not self._in_body:
            self._await_head()
        if self._in_head:  # httptools passes on a header once it is complete
            self._count_head(len(data))
            if self._refused:
                return
        in_body, self._bytes_beside_body = self._in_body, self._bytes_beside_body + len(data)
        super().data_received(data)
        if in_body and self._in_body:
            self._check_trailers()
        if self._in_head and self._deadline is None and not self._refused:  # the head followed a whole request
            self._await_head()

    def on_message_begin(self) -> None:
        if len(self.pipeline) > self._limits.pipelined:
            self._refused = True
            self.transport.abort()
            raise ConnectionAbortedError("too many requests sent ahead")  # ends the parsing of what else has arrived
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        self._in_head, self._in_body, self._bytes_beside_body = False, True, 0
        self._await_body()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._body_bytes += len(body)
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._in_body = False
        self._cancel()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _count_no_longer(self) -> None:
        if self._address is not None:
            self._limits.open[self._address] -= 1
            if not self._limits.open[self._address]:
                del self._limits.open[self._address]
            self._address = None

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes and not self._refused:
            self._refuse(431, f"the headers are larger than {self._limits.head_bytes:,} bytes; send less", retry_after=None)

    def _check_trailers(self) -> None:
        """Refuse a long time without a byte of the body: httptools joins the pieces of a trailer until it is complete."""
        if self._bytes_beside_body > self._limits.head_bytes and not self._refused:
            self._refuse(431, f"the trailers are larger than {self._limits.head_bytes:,} bytes; send less", retry_after=None)

    def _await_head(self) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(self._limits.head_seconds, self._too_slow)

    def _await_body(self) -> None:
        self._cancel()
        self._body_bytes = 0
        self._deadline = self.loop.call_later(self._limits.body_seconds, self._check_body)

    def _check_body(self) -> None:
        """End a body that makes no progress although it is read, or that is sent although the answer was complete before."""
        if self.cycle.response_complete:
            self.transport.close()
        elif self._body_bytes >= self._limits.body_bytes or self.flow.read_paused:
            self._await_body()
        else:
            self._too_slow()

    def _too_slow(self) -> None:
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()  # in the middle of an answer
        else:
            self._refuse(408, "the request did not arrive in time; send it again", retry_after=None)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int, reason: str, *, retry_after: int | None) -> None:
        """Answer outside of the application, and close the connection."""
        retry = f"retry-after: {retry_after}\r\n" if retry_after is not None else ""
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n{retry}"
        self._cancel()
        self._count_no_longer()
        self._refused = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(f"{head}content-length: {len(reason)}\r\nconnection: close\r\n\r\n{reason}".encode())
        if self._limits.lingering > 0 and self.transport.can_write_eof():
            self._limits.lingering -= 1
            self._lingers = True
            self.transport.write_eof()  # to close it while the client sends would reset it, and the answer would be lost
            self._deadline = self.loop.call_later(self._limits.linger_seconds, self.transport.abort)
        else:
            self.transport.close()
