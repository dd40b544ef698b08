"""The system under the stateful test of the scheduler: servers of two clusters, what outlives them, and a clock that can jump."""

import asyncio
import contextlib
import gc
import logging
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from tinyclip_server.database import engine as db_module
from tinyclip_server.database.engine import Database
from tinyclip_server.database.migrate import upgrade
from tinyclip_server.http import resources
from tinyclip_server.http.services import Services
from tinyclip_server.jobs import cleanup
from tinyclip_server.orchestration.ray_jobs import stalls
from tinyclip_server.orchestration.scheduling.scheduler import Scheduler
from tinyclip_server.settings import Settings

from tests.server.inline_sqlite import InlineConnection
from tests.server.scripted_cluster import CallGate, Cluster, Driver, Files, GatedRay, GatedStore

TABLES = ("jobs", "model_versions", "models")
"""Tables to clear after an example; the rows of others are deleted with their jobs."""


class Clock:
    """A replacement of `datetime` in the server."""

    at = datetime(2026, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, zone: Any = None) -> datetime:
        cls.at += timedelta(milliseconds=1)
        return cls.at


class Server:
    """One control plane, with the first or the second cluster; a restarted one is another instance."""

    def __init__(self, world: "World", place: int = 0) -> None:
        self.gate, self.place = CallGate(), place
        store = GatedStore(world.files, self.gate, world.on_control_written)
        self.services = Services(
            settings=world.settings.model_copy(update={"ray_address": f"http://ray-{place}"}), db=world.db,
            store=cast(Any, store), ray=cast(Any, GatedRay(world.clusters[place], self.gate)),
            planner=cast(Any, None), importer=cast(Any, None),
        )
        self.scheduler = Scheduler(self.services)
        self.round: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self.round is not None and not self.round.done()

    async def begin(self, *, cleans: bool) -> None:
        if not self.busy:
            self.round = asyncio.create_task(self._round(cleans))

    async def finish(self, *, cleans: bool = True) -> None:
        """Complete the round in progress, or a whole one."""
        await self.begin(cleans=cleans)
        self.gate.open = True
        for held in list(self.gate.held):
            held.deliver()
        assert self.round is not None
        await self.round
        self.gate.open = False

    async def die(self) -> None:
        if self.round is not None:
            self.round.cancel()
            await asyncio.gather(self.round, return_exceptions=True)

    async def _round(self, cleans: bool) -> None:
        await self.scheduler.tick()
        if not cleans:
            return
        with contextlib.suppress(OSError):  # the loop would log it and repeat the round
            await cleanup.reconcile(self.services)


class World:
    """What outlives a server: the database, the files and the cluster."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.settings = Settings(data_dir=path.parent, ray_address="http://ray", max_running_jobs=2, status_seconds=0)
        self.db = Database(f"sqlite+aiosqlite:///{path}")
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("PRAGMA foreign_keys=ON")
        self.random = random.Random()
        self.files: Files = {}
        self.clusters = [Cluster(self.files), Cluster(self.files)]
        self.fences: dict[str, int] = {}
        self.stale_controls: set[str] = set()
        """Jobs whose control file a superseded server has overwritten, until the next write."""

    def on_control_written(self, job: str, fence: int) -> None:
        highest = max(fence, self.fences.get(job, 0))
        self.fences[job] = highest
        (self.stale_controls.add if fence < highest else self.stale_controls.discard)(job)

    def run(self, work: Awaitable[Any]) -> Any:
        """Await some work, and run everything else until it waits."""

        async def until_quiet() -> Any:
            done = await work
            while self.loop._ready:  # type: ignore[attr-defined]  # noqa: ASYNC110 - run all that is ready
                await asyncio.sleep(0)
            return done

        return self.loop.run_until_complete(until_quiet())

    def clear(self) -> None:
        """Reset everything, with the same times and ids to come: an example must be reproducible."""
        Clock.at = datetime(2026, 1, 1, tzinfo=UTC)
        self.random.seed(0)
        for table in TABLES:
            self.database.execute(f"DELETE FROM {table}")
        self.files.clear()
        self.fences.clear()
        self.stale_controls.clear()
        self.clusters = [Cluster(self.files), Cluster(self.files)]

    @property
    def drivers(self) -> list[Driver]:
        return [driver for cluster in self.clusters for driver in cluster.drivers]

    def running_drivers(self) -> list[Driver]:
        return [driver for driver in self.drivers if driver.alive]

    def close(self) -> None:
        self.database.close()
        self.loop.run_until_complete(self.db.close())
        self.loop.close()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    path = folder / "tinyclip.db"
    asyncio.run(upgrade(f"sqlite+aiosqlite:///{path}"))

    async def connected() -> InlineConnection:
        return InlineConnection(str(path))

    monkeypatch.setattr(db_module, "create_async_engine", partial(create_async_engine, async_creator=connected))
    monkeypatch.setattr(db_module, "datetime", Clock)
    monkeypatch.setattr(stalls, "SETTLE_SECONDS", 0.0)  # by a clock that does not jump
    logging.disable(logging.CRITICAL)
    made = World(path)
    gc.collect()
    gc.freeze()  # long-lived objects: collecting them again and again takes much of the time
    monkeypatch.setattr(resources, "secrets", made.random)
    yield made
    made.close()
    gc.unfreeze()
    logging.disable(logging.NOTSET)
    shutil.rmtree(folder)
