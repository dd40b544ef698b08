"""The artifacts store for async code: every call runs in a thread and ends in limited time: a store may be remote and slow."""

import asyncio
import contextvars
import errno
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tinyclip.artifacts.remote import Deadline, StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore, StoredFile

CALL_SECONDS = 10.0
"""Time limit of a call, with the wait for a thread."""
REMOVAL_SECONDS = 60.0
"""The same for removing a folder, which may hold thousands of files."""
THREADS = 32
"""Threads for the store only: while it hangs, everything else of the server still has its own."""

StoredFiles = list[StoredFile]
Names = list[str]
T = TypeVar("T")

GAP_SECONDS = 60.0
"""A pause between two readings that is longer is an interruption: an outage of the store, of Ray or of this server."""


class AsyncArtifactsStore:
    """An `ArtifactsStore` whose calls are awaited; it opens the server's own root and nothing else.

    Every call raises StoreUnavailable, an OSError, if the store fails or does not answer in time. Its thread may go on, but
    begins no request to the store after the limit. `within_s` is a shorter limit, such as the rest of a lease.
    """

    def __init__(self, root: str) -> None:
        """Raises ValueError naming what to install where the root's scheme has no driver."""
        self._store = ArtifactsStore(root)
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self.root, self.is_local = self._store.root, self._store.is_local
        self.refusal: str | None = None
        """Why no change is made: the store belongs to another database."""

    def uri(self, path: str) -> str:
        return self._store.uri(path)

    async def write_bytes(self, path: str, data: bytes, *, within_s: float = float("inf")) -> None:
        limit_s = min(CALL_SECONDS, max(0.0, within_s))
        await self._change(path, lambda store: store.write_bytes(path, data), limit_s)

    async def create_bytes(self, path: str, data: bytes) -> bool:
        return await self._change(path, lambda store: store.create_bytes(path, data))

    async def read_if_exists(self, path: str) -> bytes | None:
        return await self._run(path, lambda store: store.read_if_exists(path))

    async def read_range(self, path: str, start: int, end: int) -> bytes:
        return await self._run(path, lambda store: store.read_range(path, start, end))

    async def exists(self, path: str) -> bool:
        return await self._run(path, lambda store: store.exists(path))

    async def list(self, path: str) -> Names:
        return await self._run(path, lambda store: store.list(path))

    async def find(self, path: str) -> StoredFiles:
        return await self._run(path, lambda store: store.find(path))

    async def remove(self, path: str) -> None:
        await self._change(path, lambda store: store.remove(path), REMOVAL_SECONDS)

    async def _change(self, path: str, call: Callable[[ArtifactsStore], T], limit_s: float | None = None) -> T:
        if self.refusal is not None:
            raise StoreUnavailable(errno.EACCES, self.refusal, self.uri(path))
        return await self._run(path, call, limit_s)

    async def _run(self, path: str, call: Callable[[ArtifactsStore], T], limit_s: float | None = None) -> T:
        limit_s = CALL_SECONDS if limit_s is None else limit_s
        store = self._store.until(Deadline(limit_s))
        context = contextvars.copy_context()  # for the ids in log lines
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, call, store)
        except TimeoutError as error:  # a mounted folder that hangs, or no thread was free
            raise StoreUnavailable(errno.EIO, f"the store does not answer within {limit_s:g} s", self.uri(path)) from error


class Readings:
    """For how long this server has read the files of each Ray job without interruption."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._times: dict[str, tuple[float, float]] = {}

    def note(self, job: str) -> float:
        """Note that a job's files were read now; return the seconds since the first reading without a gap after it."""
        at = self.clock()
        if job not in self._times:
            self._times = {id: times for id, times in self._times.items() if at - times[1] <= GAP_SECONDS}
        first, last = self._times.get(job, (at, at))
        self._times[job] = (first if at - last <= GAP_SECONDS else at, at)
        return at - self._times[job][0]
