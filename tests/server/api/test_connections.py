"""Clients that send half a request, too much of one, or do not read: each connection ends, and others are served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from tinyclip_server.api.connections import BoundedProtocol, ConnectionLimits, protocol_with

SOON = 5.0
"""Seconds, far above all limits here, in which a connection must have ended."""
LIMITS = {"lingering": 200, "head_seconds": 0.3, "body_seconds": 0.3, "body_bytes": 100, "write_seconds": 0.3}
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
LARGE = 64 << 20


@dataclass
class Application:
    """An application that reads the body, and answers `/slow` late and `/large` with LARGE bytes."""

    ended: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            while (part := await receive()).get("more_body"):
                pass
            if part["type"] == "http.disconnect":
                self.ended.append("disconnected")
                return
            if scope["path"] == "/slow":
                await asyncio.sleep(1)
            await self._answer(send, LARGE if scope["path"] == "/large" else 2)
            self.ended.append("answered")
        except asyncio.CancelledError:
            self.ended.append("cancelled")

    async def _answer(self, send: Send, size: int) -> None:
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, size, 1 << 16):
            part: Message = {"type": "http.response.body", "body": b"a" * min(1 << 16, size - start)}
            await send(part | {"more_body": start + (1 << 16) < size})


@dataclass
class Serving:
    application: Application
    limits: ConnectionLimits
    port: int

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def answer_to(self, sent: bytes) -> bytes:
        """Send bytes, keep the connection open, and return all that the server sends until it closes it."""
        reader, writer = await self.connect(sent)
        return await ended(reader, writer)


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return what is left to read until the server has closed a connection. Raises TimeoutError."""
    received = b""
    try:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SOON):
                while piece := await reader.read(1 << 16):
                    received += piece
    finally:
        writer.close()
    return received


@contextlib.asynccontextmanager
async def serving(connections: int = 1000, per_address: int = 1000, **changes: float) -> AsyncIterator[Serving]:
    application, limits = Application(), ConnectionLimits(connections, per_address, **(LIMITS | changes))  # type: ignore[arg-type]
    config = uvicorn.Config(
        application, port=0, http=protocol_with(limits), ws="none", lifespan="off", log_config=None,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event
        await asyncio.sleep(0.01)
    try:
        yield Serving(application, limits, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize(
    "sent", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n", REQUEST + b"GET / HT"],
    ids=["nothing", "a method", "half a header", "empty lines", "a second request"],
)
async def test_a_head_that_does_not_arrive_ends_the_connection(sent: bytes) -> None:
    async with serving() as served:
        answer = await served.answer_to(sent)

        assert b"HTTP/1.1 408 Request Timeout" in answer
        assert not served.limits.open


async def test_a_head_that_arrives_byte_by_byte_ends_the_connection_too() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        reading = asyncio.create_task(ended(reader, writer))
        for byte in REQUEST[:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
            if reading.done():
                break

        assert b"408" in await reading


@pytest.mark.parametrize("sent", [b"", b"a" * 50])
async def test_a_body_that_does_not_arrive_ends_the_connection(sent: bytes) -> None:
    async with serving() as served:
        answer = await served.answer_to(POST + sent)

        assert answer.startswith(b"HTTP/1.1 408 Request Timeout")
        assert served.application.ended == ["disconnected"]


async def test_a_body_that_arrives_slowly_is_accepted() -> None:
    async with serving() as served:
        reader, writer = await served.connect(POST)
        for _ in range(10):
            await asyncio.sleep(0.1)
            writer.write(b"a" * 100)

        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_answer_may_take_long() -> None:
    async with serving() as served:
        reader, writer = await served.connect(REQUEST.replace(b"/", b"/slow", 1))

        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_connection_serves_several_requests() -> None:
    async with serving() as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"aa")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.2)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000, b"GET / HTTP/1.1\r\nA: " + b"b" * 2_000_000, b"GET /" + b"a" * 2_000_000],
    ids=["many headers", "a long header", "a long URL"],
)
async def test_headers_are_limited(sent: bytes) -> None:
    async with serving() as served:
        answer = await served.answer_to(sent)

        assert not answer or answer.startswith(b"HTTP/1.1 431")  # a client that still sends may lose the answer
        assert served.application.ended == []


async def test_trailers_are_limited() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\naa\r\n0\r\nX: "
    async with serving(body_seconds=SOON) as served:
        answer = await served.answer_to(chunked + b"b" * 2_000_000)

        assert not answer or answer.startswith(b"HTTP/1.1 431")
        assert served.application.ended == ["disconnected"]


async def test_a_body_of_small_pieces_has_no_limit_of_their_heads() -> None:
    async with serving() as served:
        reader, writer = await served.connect(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            writer.write(b"1;" + b"x" * 2000 + b"\r\n")
            await asyncio.sleep(0)
            writer.write(b"a\r\n")
        writer.write(b"0\r\n\r\n")

        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
        writer.close()


async def test_the_parsing_of_requests_sent_ahead_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, complete = 0, BoundedProtocol.on_headers_complete

    def count(self: BoundedProtocol) -> None:
        nonlocal parsed
        parsed += 1
        complete(self)

    monkeypatch.setattr(BoundedProtocol, "on_headers_complete", count)
    async with serving() as served:
        await served.answer_to(REQUEST.replace(b"/", b"/slow", 1) + REQUEST * 1000)

    assert parsed <= served.limits.pipelined + 2


async def test_requests_sent_ahead_are_limited() -> None:
    async with serving() as served:
        await served.answer_to(REQUEST.replace(b"/", b"/slow", 1) + REQUEST * 1000)

        assert len(served.application.ended) <= 1


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    async with serving() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(REQUEST.replace(b"/", b"/large", 1))

        async with asyncio.timeout(SOON):
            while not served.application.ended:  # noqa: ASYNC110 - the application has no event
                await asyncio.sleep(0.05)

        assert not served.limits.open
        writer.close()


async def test_connections_of_one_address_are_limited_and_300_half_sent_requests_end() -> None:
    async with serving(per_address=200, head_seconds=3.0) as served:
        connections = [await served.connect(b"GET / HTTP/1.1\r\n") for _ in range(300)]

        answers = [await ended(*connection) for connection in connections]

        assert sum(b"HTTP/1.1 429" in answer and b"retry-after: 1" in answer for answer in answers) == 100
        assert sum(b"HTTP/1.1 408" in answer for answer in answers) == 200
        reader, writer = await served.connect(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_upgrade_is_not_made_and_the_connection_is_still_counted() -> None:
    async with serving() as served:
        reader, writer = await served.connect(REQUEST[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert served.limits.open.total() == 1
        writer.close()
        await asyncio.sleep(0.1)
        assert not served.limits.open


async def test_all_connections_are_limited() -> None:
    async with serving(connections=2) as served:
        first, second = await served.connect(), await served.connect()

        answer = await served.answer_to(b"")

        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable")
        assert b"retry-after: 1" in answer
        for reader, writer in (first, second):
            await ended(reader, writer)
        assert (await served.answer_to(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")
