"""Checks of what a server depends on, and whether requests should be sent to another server.

*Not ready* takes this server out of a load balancer's rotation. It is reported for what another server may not have: a lost
database connection, a database of another revision, a scheduler that hangs. Artifacts and Ray are the same for all servers;
without them jobs wait, but can still be submitted, watched and cancelled, so the server is *degraded*. A server that has never
reached them is not ready: its configuration is probably wrong, and a rollout should stop. So is one whose artifacts belong to
another database.
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
from tinyclip_server.orchestration.installation import foreign_store

SHARED = ("artifacts", "ray")
"""Dependencies that are the same for all servers."""
CHECK_SECONDS = 5.0
"""The timeout of one check."""
ARTIFACTS_SECONDS = 10.0
"""How long a successful write to the artifacts counts: on S3 each check costs requests."""
HANGING_SECONDS = 60.0
"""A scheduler that has ended no round for this time, not even with an error, hangs."""


@dataclass(frozen=True)
class Report:
    """The problems that were found, by dependency."""

    problems: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Those that make the server not ready."""

    @property
    def status(self) -> str:
        return "not ready" if self.missing else "degraded" if self.problems else "ready"


class Readiness:
    """Checks the dependencies, and records which of them have answered since the start."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._have_answered: set[str] = set()
        self._wrote_at = float("-inf")
        self._last: tuple[float, Report] = (float("-inf"), Report())
        self._lock = asyncio.Lock()

    async def check(self, *, max_age_s: float = 0.0) -> Report:
        """Check all dependencies, or return the last report if it is recent enough; concurrent callers share one check."""
        asked_at = time.monotonic()
        async with self._lock:
            if self._last[0] >= asked_at - max_age_s:
                return self._last[1]
            report = await self._check()
            self._last = (time.monotonic(), report)
            return report

    async def _check(self) -> Report:
        checks = {
            "database": self._database(), "scheduler": self._scheduler(), "artifacts": self._artifacts(), "ray": self._ray(),
        }
        results = dict(zip(checks, await asyncio.gather(*(_bounded(check) for check in checks.values())), strict=True))
        for name, problem in results.items():
            self._services.metrics.dependency.labels(name).set(problem is None)
            if problem is None:
                self._have_answered.add(name)
        problems = {name: problem for name, problem in results.items() if problem is not None}
        required = set(results) - (self._have_answered & set(SHARED))
        return Report(problems, [f"{name} {problem}" for name, problem in problems.items() if name in required])

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
        silent = self._services.metrics.seconds_since_round("jobs")
        return f"has ended no round for {silent:.0f} s" if silent is not None and silent > HANGING_SECONDS else None

    async def _artifacts(self) -> str | None:
        if time.monotonic() - self._wrote_at < ARTIFACTS_SECONDS:
            return None
        problem = await self._foreign() or await probe(self._services.store)
        if problem is None:
            self._wrote_at = time.monotonic()
        return problem

    async def _foreign(self) -> str | None:
        """Return a problem if the artifacts store is another database's: then no work is done, whatever answered before."""
        try:
            problem = await foreign_store(self._services.db, self._services.store)
        except (SQLAlchemyError, OSError):
            return None  # the check of the database, or of the artifacts, reports it
        if problem is None:
            return None
        self._have_answered.discard("artifacts")
        return f"are not its own: {problem}"

    async def _ray(self) -> str | None:
        return None if await self._services.ray.ready() else "cannot be reached"


async def probe(store: AsyncArtifactsStore) -> str | None:
    """Write, read and delete a small file in the artifacts; return the problem if that fails."""
    path, data = probe_file(uuid.uuid4().hex), b"a probe of the artifacts store"
    try:
        await store.write_bytes(path, data)
        read = await store.read_if_exists(path)
        await store.remove(path)
    except Exception as error:  # each kind of store raises errors of its own
        return f"cannot be written: {str(error) or type(error).__name__}"
    return None if read == data else "return other bytes than were written"


async def _bounded(check: Awaitable[str | None]) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check
    except TimeoutError:
        return f"did not answer within {CHECK_SECONDS:g} s"
