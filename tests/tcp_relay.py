"""A relay of TCP connections that can stop forwarding without closing anything, as a failed proxy or link does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Forwards connections to a server of this machine."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def hang(self) -> None:
        """Accept connections and data, and forward nothing, not even the end of a connection."""
        self._forwarding.clear()

    def recover(self, *, old: bool = True) -> None:
        """Forward again: everything, or new connections only, so that both ends of the old ones wait for ever."""
        if not old:
            self._forwarding = asyncio.Event()
        self._forwarding.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarding, writers = self._forwarding, [writer]
        try:
            await forwarding.wait()
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            writers.append(upstream_writer)
            await asyncio.gather(_pump(forwarding, reader, upstream_writer), _pump(forwarding, upstream_reader, writer))
        finally:
            for each in writers:
                each.transport.abort()

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(forwarding: asyncio.Event, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    data = b"-"
    with contextlib.suppress(ConnectionError):
        while data:
            data = await source.read(1 << 16)
            await forwarding.wait()
            target.write(data)
    await forwarding.wait()
    target.close()


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Forward connections to a port of this machine."""
    made = Relay(port)
    server = await asyncio.start_server(made.start, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.stop()
