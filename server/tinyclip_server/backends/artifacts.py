"""The artifacts store for async code: every call runs in a thread, because a store may be remote and slow."""

import asyncio
import time
from collections.abc import Callable

from tinyclip.artifacts.store import ArtifactsStore, StoredFile

StoredFiles = list[StoredFile]
Names = list[str]

GAP_SECONDS = 60.0
"""A pause between two readings that is longer is an interruption: an outage of the store, of Ray or of this server."""


class AsyncArtifactsStore:
    """An `ArtifactsStore` whose calls are awaited; it opens the server's own root and nothing else."""

    def __init__(self, root: str) -> None:
        """Raises ValueError naming what to install where the root's scheme has no driver."""
        self._store = ArtifactsStore(root)
        self.root, self.is_local = self._store.root, self._store.is_local

    def uri(self, path: str) -> str:
        return self._store.uri(path)

    async def write_bytes(self, path: str, data: bytes) -> None:
        await asyncio.to_thread(self._store.write_bytes, path, data)

    async def create_bytes(self, path: str, data: bytes) -> bool:
        return await asyncio.to_thread(self._store.create_bytes, path, data)

    async def read_if_exists(self, path: str) -> bytes | None:
        return await asyncio.to_thread(self._store.read_if_exists, path)

    async def read_range(self, path: str, start: int, end: int) -> bytes:
        return await asyncio.to_thread(self._store.read_range, path, start, end)

    async def exists(self, path: str) -> bool:
        return await asyncio.to_thread(self._store.exists, path)

    async def list(self, path: str) -> Names:
        return await asyncio.to_thread(self._store.list, path)

    async def find(self, path: str) -> StoredFiles:
        return await asyncio.to_thread(self._store.find, path)

    async def remove(self, path: str) -> None:
        await asyncio.to_thread(self._store.remove, path)


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
