"""The parts of one running server, and the dependencies by which endpoints use them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.backends.artifacts import AsyncArtifactsStore, Readings
from tinyclip_server.backends.data_roots import AddressChecks
from tinyclip_server.backends.importer import Importer
from tinyclip_server.backends.node_metrics import NodeMetrics
from tinyclip_server.backends.planner import Planner
from tinyclip_server.backends.ray_gateway import Ray
from tinyclip_server.backends.serve_proxy import ServeProxy
from tinyclip_server.database.engine import Database
from tinyclip_server.http.callers import Caller, caller_of
from tinyclip_server.http.metrics import Metrics
from tinyclip_server.http.streams import Feeds
from tinyclip_server.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of a server, created at its start."""

    settings: Settings
    db: Database
    store: AsyncArtifactsStore
    ray: Ray
    planner: Planner
    importer: Importer
    addresses: AddressChecks = field(default_factory=AddressChecks)
    metrics: Metrics = field(default_factory=Metrics)
    serve: ServeProxy = field(default_factory=ServeProxy)
    readings: Readings = field(default_factory=Readings)
    feeds: Feeds = field(default_factory=Feeds)
    served: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once this server has seen a deployment: from then on Serve is compared with the database, also without deployments."""
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    """The name under which this server leases searches."""
    advised: dict[str, str] = field(default_factory=dict)
    """Digests of the records of searches, by id, for which there was nothing to do: advice is asked for when they change."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops: long polls return at once."""

    @cached_property
    def node_metrics(self) -> NodeMetrics:
        return NodeMetrics(self.ray)

    async def close(self) -> None:
        await self.serve.close()
        await self.planner.close()
        await self.ray.close()
        await self.db.close()


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def _read_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with services(request).db.read() as session:
        yield session


async def _write_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with services(request).db.write() as session:
        yield session


# Coroutines, although they do not wait: FastAPI runs plain functions in a thread each.
async def _services(request: Request) -> Services:
    return services(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _project(request: Request) -> str:
    return caller_of(request).project


# scope="function": the transaction has committed before the response is sent.
ReadSession = Annotated[AsyncSession, Depends(_read_session, scope="function")]
WriteSession = Annotated[AsyncSession, Depends(_write_session, scope="function")]
ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Caller, Depends(_caller)]
Project = Annotated[str, Depends(_project)]
