"""The artifacts store for async code: every call runs in a thread, because a store may be remote and slow."""

import asyncio

from tinyclip.artifacts.store import ArtifactsStore, StoredFile

StoredFiles = list[StoredFile]
Names = list[str]


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
