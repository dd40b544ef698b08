"""`tinyclip-server up`: run the service on one machine, in the foreground, until a graceful shutdown."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator

import uvicorn
import uvloop
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from tinyclip_server.api.app import build_services, create_app
from tinyclip_server.api.connections import ConnectionLimits, protocol_with
from tinyclip_server.api.readiness import Readiness
from tinyclip_server.database.engine import Database
from tinyclip_server.database.locks import EMBEDDED_LOCK, DatabaseInUse, SessionLock, sole_server
from tinyclip_server.database.migrate import CannotMigrate, WrongRevision, expect_head, upgrade
from tinyclip_server.local.machine import PortTaken, listen
from tinyclip_server.local.ray import LocalRay, RayDidNotStart
from tinyclip_server.logs import logging_to
from tinyclip_server.orchestration.installation import ForeignStore, bind
from tinyclip_server.orchestration.scheduling.scheduler import Scheduler
from tinyclip_server.settings import Settings

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
STORE_SECONDS = 10.0
"""The time that the artifacts store has to answer before the service starts without it."""
DRAIN_SECONDS = 5
COLLECTOR_THRESHOLD = 10_000
"""Objects allocated between two runs of the garbage collector. The default is 700, which one request exceeds."""


class CannotStart(Exception):
    """A service that cannot start; the message has the reason and what to do."""


def up(settings: Settings) -> None:
    """Run the service until SIGINT or SIGTERM. Raises `CannotStart`."""
    _require_private_address(settings)
    for problem in (settings.cluster_problem, settings.roots_problem):
        if problem is not None:
            raise CannotStart(problem)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(settings.data_dir / "lock", timeout=0),
            sole_server(settings.async_database_url),
            logging_to(settings.data_dir / "logs", settings),
        ):
            uvloop.run(_run(settings))
    except Timeout:
        raise CannotStart(f"another tinyclip-server uses {settings.data_dir}; stop it or choose another --data-dir") from None
    except (PortTaken, RayDidNotStart, CannotMigrate, WrongRevision, DatabaseInUse, ForeignStore) as error:
        raise CannotStart(str(error)) from error


async def _run(settings: Settings) -> None:
    with listen(settings.host, settings.port, "--port") as bound:
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
        await _prepare_database(settings)
        await _check_store(settings)
        if not settings.embedded:
            await _serve(settings, bound, [])
            return
        async with _sole_embedded_server(settings) as watch:
            await _run_with_ray(settings, bound, watch)


async def _run_with_ray(settings: Settings, bound: socket.socket, watch: Coroutine[None, None, None]) -> None:
    """Serve with a cluster that is started or adopted here, and stopped at the end."""
    with contextlib.closing(watch):
        ray = LocalRay(settings)
        adopted = await ray.adopt()
        if not adopted:
            await ray.clear()
        settings = settings.model_copy(update=ray.settings())
        try:
            await _serve(settings, bound, [_supervise(ray, started=adopted), watch], cluster_lost=not adopted)
        finally:
            await ray.stop()
            await _end_attempts(settings)


async def _prepare_database(settings: Settings) -> None:
    """Upgrade a SQLite file; check the revision of a PostgreSQL, which only `migrate` changes, since others may use it."""
    if settings.async_database_url.startswith("sqlite"):
        await upgrade(settings.async_database_url)
    else:
        await expect_head(settings.async_database_url)


async def _check_store(settings: Settings) -> None:
    """Raise ForeignStore if the artifacts store is another database's. One that does not answer is checked before work begins."""
    services = build_services(settings)
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await bind(services)
    except ForeignStore:
        raise
    except Exception as error:  # each kind of store raises errors of its own
        logger.warning("the artifacts store does not answer yet: %s", error or type(error).__name__)
    finally:
        await services.close()


@contextlib.asynccontextmanager
async def _sole_embedded_server(settings: Settings) -> AsyncIterator[Coroutine[None, None, None]]:
    """Hold the lock of the server with an embedded cluster, which matters on PostgreSQL; yield the work of keeping it."""
    database = Database(settings.async_database_url)
    lock = SessionLock(database, EMBEDDED_LOCK)
    in_use = DatabaseInUse("another tinyclip-server with an embedded cluster uses this database; stop it, or use its cluster")

    async def keep() -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with contextlib.suppress(SQLAlchemyError, OSError):  # it is away or hangs: once it answers, the lock is checked
                if not await lock.still_held():
                    raise in_use

    try:
        if not await lock.acquire():
            raise in_use
        yield keep()
    finally:
        await lock.close()
        await database.close()


async def _serve(
    settings: Settings, bound: socket.socket, background: list[Coroutine[None, None, None]], *, cluster_lost: bool = False
) -> None:
    """Serve the API until a signal arrives or a background task fails."""
    app = create_app(settings, cluster_lost=cluster_lost)
    limits = ConnectionLimits(settings.max_connections, settings.max_connections_per_address)
    server = _Server(
        uvicorn.Config(
            app, http=protocol_with(limits), ws="none", log_config=None, access_log=False,  # type: ignore[arg-type]  # only called
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )

    def stop(number: int) -> None:
        app.state.services.stopping.set()
        server.handle_exit(number, None)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    _tune_garbage_collector()
    tasks = [asyncio.create_task(work) for work in [_announce(app.state.services.settings, app.state.readiness), *background]]
    for task in tasks:
        task.add_done_callback(lambda done: _stop_if_failed(done, server))
    await server.serve(sockets=[bound])
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _tune_garbage_collector() -> None:
    """Exclude the modules and routes from garbage collection, since they live until the process exits."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTOR_THRESHOLD, *gc.get_threshold()[1:])


class _Server(uvicorn.Server):
    """A server without signal handlers: uvicorn's raise the signal again at its end, which would skip stopping Ray."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _stop_if_failed(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True


async def _announce(settings: Settings, readiness: Readiness) -> None:
    """Print the addresses of the service, and `ready` once it is."""
    api = f"http://{settings.host}:{settings.port}"
    print(f"TinyCLIP keeps its files in {settings.data_dir}")
    print(f"  Console        {api}")
    print(f"  API            {api}/v1  (described at {api}/docs)")
    token = f"  (asks for the token in {settings.ray_token_path})" if settings.ray_token_path else ""
    print(f"  Ray dashboard  {settings.ray_address}{token}")
    print(f"  Deployments    {settings.serve_base_url}", flush=True)
    if settings.auth == "tokens":
        print("  Tokens         required; create the first with: tinyclip-server create-token --scope admin", flush=True)
    while (await readiness.check()).status != "ready":  # noqa: ASYNC110 - there is no event for readiness
        await asyncio.sleep(0.2)
    print("ready", flush=True)


async def _supervise(ray: LocalRay, *, started: bool) -> None:
    """Start the cluster, and restart it whenever its head exits. Raises `RayDidNotStart`."""
    if not started:
        await ray.start()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        if not ray.is_running():
            logger.error("the Ray head exited; restarting it")
            await ray.start()


async def _end_attempts(settings: Settings) -> None:
    """End the attempts of the cluster that was stopped, if database and store answer; else the next start does it."""
    services = build_services(settings)
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await Scheduler(services).interrupt_when_reachable()
    except TimeoutError:
        logger.warning("the attempts that were running are ended when the service starts again")
    finally:
        await services.close()


def _require_private_address(settings: Settings) -> None:
    """Raise `CannotStart` if the API would serve other machines without tokens."""
    if settings.auth == "tokens" or settings.allow_public or settings.host == "localhost":
        return
    try:
        private = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        private = False
    if not private:
        raise CannotStart(
            f"{settings.host} can be reached from outside, and no token is required; set TINYCLIP_AUTH=tokens and create "
            "one with tinyclip-server create-token, or use --host 127.0.0.1, or set TINYCLIP_ALLOW_PUBLIC=1 behind a proxy that "
            "authenticates"
        )
