"""Turns of projects at a scarce helper process, so that a slow request of one project does not block the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tinyclip_server.problems import TooManyRequests


@dataclass
class _Project:
    """The requests of one project."""

    admitted: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Turns:
    """Slots that projects take in round robin.

    A project holds one slot at most, and has one request at most in the line for a slot; so the line, which is first come, first
    served, alternates between projects. The number of a project's requests is limited.
    """

    def __init__(self, slots: int, *, admitted: int, patience_s: float, work: str) -> None:
        """Allow `admitted` requests of a project, working or waiting, each waiting `patience_s` at most. `work`: for messages."""
        self._slots, self._count = asyncio.Semaphore(slots), slots
        self._admitted, self._patience_s, self._work = admitted, patience_s, work
        self._projects: dict[str, _Project] = {}

    @contextlib.asynccontextmanager
    async def admit(self, project: str) -> AsyncIterator[None]:
        """Count a request from its arrival to its end. Raises TooManyRequests."""
        known = self._projects.setdefault(project, _Project())
        if known.admitted >= self._admitted:
            message = f"{known.admitted} requests of this project wait for {self._work}; send this one when some are answered"
            raise TooManyRequests(message, code="busy", retry_after=5)
        known.admitted += 1
        try:
            yield
        finally:
            known.admitted -= 1
            if known.admitted == 0:
                del self._projects[project]

    @contextlib.asynccontextmanager
    async def all_slots(self) -> AsyncIterator[None]:
        """Hold every slot, as to prepare what the slots stand for."""
        async with contextlib.AsyncExitStack() as held:
            for _ in range(self._count):
                await held.enter_async_context(self._slots)
            yield

    @contextlib.asynccontextmanager
    async def turn(self, project: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it; for an admitted request. Raises TooManyRequests after `patience_s`."""
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._patience_s):
                    await held.enter_async_context(self._projects[project].turn)
                    await held.enter_async_context(self._slots)
            except TimeoutError:
                message = f"{self._work} of other requests takes longer than {self._patience_s:g} s; send this one again"
                raise TooManyRequests(message, code="busy", retry_after=30) from None
            yield
