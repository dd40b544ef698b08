"""The application: its parts, its routes and its background loops."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Security
from fastapi.security import HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import BaseRoute

from tinyclip_server.api import health
from tinyclip_server.api.access import AccessGate
from tinyclip_server.api.error_handlers import install_problem_handlers, problem_response
from tinyclip_server.api.openapi import ANY_PROBLEM, install_document
from tinyclip_server.api.readiness import Readiness
from tinyclip_server.api.request_ids import RequestIdMiddleware
from tinyclip_server.api.request_log import RequestLogMiddleware
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.helper_process import HelperProcess
from tinyclip_server.backends.importer import Importer
from tinyclip_server.backends.planner import Planner
from tinyclip_server.backends.ray_gateway import Ray, RayGateway
from tinyclip_server.cluster import endpoints as cluster
from tinyclip_server.console.pages import Console
from tinyclip_server.database.engine import Database
from tinyclip_server.datasets import endpoints as datasets
from tinyclip_server.datasets import version_endpoints as dataset_versions
from tinyclip_server.deployments import endpoints as deployments
from tinyclip_server.deployments import query_endpoints as queries
from tinyclip_server.evaluations import endpoints as evaluations
from tinyclip_server.exports import endpoints as exports
from tinyclip_server.http.services import Services
from tinyclip_server.indexes import endpoints as indexes
from tinyclip_server.jobs import cleanup, examples, history
from tinyclip_server.jobs import endpoints as jobs
from tinyclip_server.jobs import schemas as job_schemas
from tinyclip_server.models import endpoints as models
from tinyclip_server.models import imports
from tinyclip_server.models import prediction_endpoints as predictions
from tinyclip_server.orchestration import retention
from tinyclip_server.orchestration.followers import datasets as datasets_reconcile
from tinyclip_server.orchestration.followers import evaluations as evaluations_reconcile
from tinyclip_server.orchestration.followers import exports as exports_reconcile
from tinyclip_server.orchestration.followers import indexes as indexes_reconcile
from tinyclip_server.orchestration.followers import reinforcements as reinforcements_reconcile
from tinyclip_server.orchestration.installation import bind_when_reachable, until_foreign
from tinyclip_server.orchestration.loops import repeat
from tinyclip_server.orchestration.scheduling.scheduler import Scheduler
from tinyclip_server.orchestration.searches import loop as searches_reconcile
from tinyclip_server.orchestration.searches import measurements as measurements_reconcile
from tinyclip_server.orchestration.serve import deployments as deployments_reconcile
from tinyclip_server.orchestration.serve import token_digests as tokens_publish
from tinyclip_server.reinforcements import endpoints as reinforcements
from tinyclip_server.searches import endpoints as searches
from tinyclip_server.settings import Settings
from tinyclip_server.tokens import endpoints as tokens

logger = logging.getLogger(__name__)

ROUTERS: list[APIRouter] = [
    jobs.router, history.router, examples.router, job_schemas.router, datasets.router, dataset_versions.router,
    reinforcements.router, models.router, models.compare_router, predictions.router, deployments.router, queries.router,
    cluster.router, indexes.router, indexes.items_router, evaluations.router, exports.router, searches.router,
    tokens.router, tokens.me_router,
]
"""The routes under /v1, one router a resource."""

Work = Callable[[], Coroutine[None, None, None]]
Loop = Callable[[asyncio.Event], Coroutine[None, None, None]]
"""Work that ends once the event is set."""

RECONCILERS: dict[str, Callable[[Services], Awaitable[None]]] = {
    "deployments": deployments_reconcile.reconcile,
    "datasets": datasets_reconcile.reconcile,
    "reinforcements": reinforcements_reconcile.reconcile,
    "indexes": indexes_reconcile.reconcile,
    "evaluations": evaluations_reconcile.reconcile,
    "exports": exports_reconcile.reconcile,
    "searches": searches_reconcile.reconcile,
    "measurements": measurements_reconcile.reconcile,
    "cleanup": cleanup.reconcile,
    "tokens": tokens_publish.publish,
}
"""The reconcilers of resources other than jobs by name, each of which runs in a loop of its own."""
RECONCILE_SECONDS = 1.0
RETENTION_SECONDS = 600.0
ROUND_SECONDS = 2.0
"""The time in which the rounds of the loops can end before they are cancelled: a statement that is cancelled on SQLite may keep
the write lock until Python frees it."""
RELEASE_SECONDS = 3.0
"""The time that a stopping server has to release its leases."""

BEARER = HTTPBearer(auto_error=False, description="tc_…; create one with tinyclip-server create-token")
"""For the OpenAPI document only: the access gate checks the token before a route is matched."""


def create_app(
    settings: Settings,
    *,
    ray: Ray | None = None,
    planner: Planner | None = None,
    importer: Importer | None = None,
    schedule: bool = True,
    cluster_lost: bool = False,
) -> FastAPI:
    """Create the control plane for these settings. `cluster_lost`: its Ray cluster has ended, and its attempts with it.

    Tests pass their own `ray`, `planner` and `importer`, and `schedule=False` to run each round of the loops themselves.
    """
    services = build_services(settings, ray, planner, importer)
    scheduler = Scheduler(services)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        background = [asyncio.create_task(work) for work in _background(services, scheduler, cluster_lost)] if schedule else []
        yield
        services.stopping.set()
        await _end(background, ROUND_SECONDS + 1)
        if schedule:
            await _release(services, scheduler)
        await services.close()

    app = FastAPI(
        title="TinyCLIP", version=version("tinyclip"), lifespan=lifespan, routes=_routes(),
        redirect_slashes=False,  # a redirect would lead to the host in the caller's Host header
        docs_url=None, redoc_url=None,  # the console's, which load nothing from other hosts
    )
    app.state.services = services
    app.state.scheduler = scheduler
    app.state.readiness = Readiness(services)
    app.add_middleware(AccessGate, services=services)
    app.add_middleware(Console, refuse=problem_response)  # outside the gate and before the routes: pages need no token
    app.add_middleware(RequestIdMiddleware)  # outside the gate: refused requests have an id too
    app.add_middleware(RequestLogMiddleware, metrics=services.metrics)  # outermost
    install_problem_handlers(app)
    install_document(app)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return the routes, which all applications of a process share: building them takes longer than all the rest."""
    router = APIRouter()
    router.include_router(health.router, responses=ANY_PROBLEM)
    for resource in ROUTERS:
        router.include_router(resource, prefix="/v1", dependencies=[Security(BEARER)], responses=ANY_PROBLEM)
    return router.routes


async def _release(services: Services, scheduler: Scheduler) -> None:
    """Release leases if the database answers in time; otherwise they expire."""
    try:
        async with asyncio.timeout(RELEASE_SECONDS):
            await scheduler.release()
            await searches_reconcile.release(services)
    except (SQLAlchemyError, OSError) as error:
        logger.warning("leases are not released and will expire: %s", error or type(error).__name__)


def _background(services: Services, scheduler: Scheduler, cluster_lost: bool) -> list[Coroutine[None, None, None]]:
    """Return the loops of a server."""
    loops: dict[str, tuple[Callable[[], Awaitable[None]], float]] = {
        "jobs": (scheduler.tick, services.settings.tick_seconds),
        "retention": (partial(retention.reconcile, services), RETENTION_SECONDS),
        **{name: (partial(reconcile, services), RECONCILE_SECONDS) for name, reconcile in RECONCILERS.items()},
    }
    timed = services.metrics.timed
    repeated: list[Loop] = [partial(repeat, name, timed(name, work), seconds) for name, (work, seconds) in loops.items()]
    first = scheduler.interrupt_when_reachable if cluster_lost else None
    return [services.planner.warm_up(), _when_bound(services, first, [lambda _: imports.sweep(services), *repeated])]


async def _when_bound(services: Services, first: Work | None, loops: list[Loop]) -> None:
    """Run the loops whenever the artifacts store is known to be the database's own; `first` before them, once."""
    while await bind_when_reachable(services):
        if first is not None:
            await first()
            first = None
        ending = asyncio.Event()
        running = [asyncio.create_task(loop(ending)) for loop in loops]
        try:
            await until_foreign(services)
            ending.set()
            await asyncio.wait(running, timeout=ROUND_SECONDS)
        finally:
            await _end(running)


async def _end(tasks: Sequence[asyncio.Task[Any]], within_s: float = 0.0) -> None:
    """Wait for the end of tasks, and cancel those that take longer than `within_s`."""
    if tasks and within_s:
        await asyncio.wait(tasks, timeout=within_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def build_services(
    settings: Settings, ray: Ray | None = None, planner: Planner | None = None, importer: Importer | None = None
) -> Services:
    """Create the parts of a server without starting them."""
    return Services(
        settings=settings,
        # A server whose transaction is idle for longer than a lease has lost its leases; its locks must not block the others.
        db=Database(settings.async_database_url, idle_s=settings.lease_seconds),
        store=AsyncArtifactsStore(settings.artifacts_root),
        ray=ray
        or RayGateway(
            settings.ray_address, token_path=settings.ray_token_path, driver_cpus=settings.driver_cpus,
            job_environment=settings.worker_environment,
        ),
        planner=planner or Planner([_planner_process(settings) for _ in range(settings.planner_processes)]),
        importer=importer or Importer(_import_process(settings)),
    )


def _planner_process(settings: Settings) -> HelperProcess:
    return HelperProcess(
        settings.planner_command, timeout_s=settings.planner_timeout_seconds, log=_helper_log(settings, "planner.log"),
        environment=settings.planner_environment, memory_bytes=settings.planner_memory_bytes,
    )


def _import_process(settings: Settings) -> HelperProcess:
    return HelperProcess(
        settings.import_command, timeout_s=settings.import_timeout_seconds, log=_helper_log(settings, "import.log"),
        environment=settings.worker_environment, memory_bytes=settings.import_memory_limit,
    )


def _helper_log(settings: Settings, name: str) -> Path | None:
    logs = settings.data_dir / "logs"
    return logs / name if logs.is_dir() else None
