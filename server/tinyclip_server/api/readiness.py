"""Whether a server can do its work, and if not, whether requests should go elsewhere.

*Not ready* takes this server out of a load balancer's rotation, so it is said where another server would do better: its own
database connection, a database of another revision, a scheduler that stands still. Artifacts and Ray are the same for all
servers; without them jobs wait, but may be submitted, watched and cancelled, and taking every server away would only hide that:
*degraded*. A server that has never reached them yet is not ready: more likely it was told the wrong address, and a rollout stops.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from tinyclip.artifacts.paths import probe_file

from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.database.migrate import WrongRevision, current, refuse_unless_head
from tinyclip_server.http.services import Services

SHARED = ("artifacts", "ray")
"""The same for all servers."""
LOOK_SECONDS = 5.0
"""After which a part counts as not answering."""
ARTIFACTS_SECONDS = 10.0
"""How long a successful write to the artifacts is believed; each costs requests where they are on S3."""
STANDSTILL_SECONDS = 60.0
"""A scheduler that has not ended a round for so long, not even badly, hangs."""


@dataclass(frozen=True)
class Look:
    """What was found; a part that is well has no complaint."""

    complaints: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Complaints that make the server not ready."""

    @property
    def status(self) -> str:
        return "not ready" if self.missing else "degraded" if self.complaints else "ready"


class Readiness:
    """Looks, and remembers what has been well since the start."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._have_answered: set[str] = set()
        self._wrote_at = float("-inf")
        self._last: tuple[float, Look] = (float("-inf"), Look())

    async def look(self, *, at_most_s_old: float = 0.0) -> Look:
        """All parts at once, or what was seen a short while ago."""
        if time.monotonic() - self._last[0] < at_most_s_old:
            return self._last[1]
        parts = {"database": self._database(), "scheduler": self._scheduler(), "artifacts": self._artifacts(), "ray": self._ray()}
        said = dict(zip(parts, await asyncio.gather(*(_bounded(part) for part in parts.values())), strict=True))
        self._have_answered |= {part for part, complaint in said.items() if complaint is None}
        for part, complaint in said.items():
            self._services.metrics.dependency.labels(part).set(complaint is None)
        complaints = {part: complaint for part, complaint in said.items() if complaint is not None}
        found = Look(complaints, [f"{part} {why}" for part, why in complaints.items() if self._blocks(part)])
        self._last = (time.monotonic(), found)
        return found

    def _blocks(self, part: str) -> bool:
        return part not in SHARED or part not in self._have_answered

    async def _database(self) -> str | None:
        try:
            async with self._services.db.engine.connect() as connection:
                refuse_unless_head(await current(connection))
        except (SQLAlchemyError, OSError):
            return "cannot be reached"
        except WrongRevision as error:
            return f"does not fit: {error}"
        return None

    async def _scheduler(self) -> str | None:
        silent = self._services.metrics.silent_for("jobs")
        return f"has stood still for {silent:.0f} s" if silent is not None and silent > STANDSTILL_SECONDS else None

    async def _artifacts(self) -> str | None:
        if time.monotonic() - self._wrote_at < ARTIFACTS_SECONDS:
            return None
        complaint = await probe(self._services.store)
        if complaint is None:
            self._wrote_at = time.monotonic()
        return complaint

    async def _ray(self) -> str | None:
        return None if await self._services.ray.ready() else "cannot be reached"


async def probe(store: AsyncArtifactsStore) -> str | None:
    """Write, read and delete a small file in the artifacts; null if that went well."""
    path, data = probe_file(uuid.uuid4().hex), b"written to see whether it can be"
    try:
        await store.write_bytes(path, data)
        read = await store.read_if_exists(path)
        await store.remove(path)
    except Exception as error:  # each kind of store has errors of its own
        return f"cannot be written: {str(error) or type(error).__name__}"
    return None if read == data else "give back something else than was written"


async def _bounded(part: Awaitable[str | None]) -> str | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await part
    except TimeoutError:
        return f"did not answer within {LOOK_SECONDS:g} s"
