"""`tinyclip-server up`: the whole service on one machine, in the foreground, from the first line to a clean end."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Coroutine, Iterator

import uvicorn
import uvloop
from filelock import FileLock, Timeout

from tinyclip_server.api.app import build_services, create_app
from tinyclip_server.api.readiness import Readiness
from tinyclip_server.database.migrate import CannotMigrate, WrongRevision, expect_head, upgrade
from tinyclip_server.local.machine import PortTaken, listen
from tinyclip_server.local.ray import LocalRay, RayDidNotStart
from tinyclip_server.logs import logging_to
from tinyclip_server.orchestration.scheduler import Scheduler
from tinyclip_server.settings import Settings

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
DRAIN_SECONDS = 5
YOUNG_OBJECTS = 10_000
"""After so many new ones the collector looks for garbage among them; by default after 700, which one request makes alone."""


class CannotStart(Exception):
    """The message says why and what to do."""


def up(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM. Raises CannotStart before anything was started."""
    _expect_private(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.data_dir / "lock", timeout=0), logging_to(settings.data_dir / "logs", settings):
            uvloop.run(_run(settings))
    except Timeout:
        raise CannotStart(f"another tinyclip-server uses {settings.data_dir}; stop it or give another --data-dir") from None
    except (PortTaken, RayDidNotStart, CannotMigrate, WrongRevision) as error:
        raise CannotStart(str(error)) from error


async def _run(settings: Settings) -> None:
    with listen(settings.host, settings.port, "--port") as bound:
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
        await _bring_up_to_date(settings)
        if not settings.embedded:
            await _serve(settings, bound, [])
            return
        ray = LocalRay(settings)
        adopted = await ray.find()
        if not adopted:
            await ray.clear()
            listen(settings.host, settings.serve_port, "--serve-port").close()
        settings = settings.model_copy(update=ray.settings())
        if not adopted:
            await _settle(settings)
        try:
            await _serve(settings, bound, [_keep_running(ray, started=adopted)])
        finally:
            await ray.stop()
            await _settle(settings)


async def _bring_up_to_date(settings: Settings) -> None:
    """A SQLite file is this server's alone. Other servers, perhaps older, may use a PostgreSQL: only `migrate` changes it."""
    if settings.async_database_url.startswith("sqlite"):
        await upgrade(settings.async_database_url)
    else:
        await expect_head(settings.async_database_url)


async def _serve(settings: Settings, bound: socket.socket, beside: list[Coroutine[None, None, None]]) -> None:
    """The API until a signal comes, or until what runs beside it fails."""
    app = create_app(settings)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS))

    def stop(number: int) -> None:
        app.state.services.stopping.set()
        server.handle_exit(number, None)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    _spare_the_collector()
    tasks = [asyncio.create_task(work) for work in [_announce(app.state.services.settings, app.state.readiness), *beside]]
    for task in tasks:
        task.add_done_callback(lambda done: _stop_if_failed(done, server))
    await server.serve(sockets=[bound])
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _spare_the_collector() -> None:
    """What is here by now, modules and routes, stays to the end: to look through it for garbage again and again is in vain."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again at its end, which would cut off stopping the rest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _stop_if_failed(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True


async def _announce(settings: Settings, readiness: Readiness) -> None:
    """Say where everything is, and `ready` once it is."""
    api = f"http://{settings.host}:{settings.port}"
    print(f"TinyCLIP keeps its files in {settings.data_dir}")
    print(f"  API            {api}")
    print(f"  API docs       {api}/docs")
    token = f"  (asks for the token in {settings.ray_token_path})" if settings.ray_token_path else ""
    print(f"  Ray dashboard  {settings.ray_address}{token}")
    print(f"  Deployments    {settings.serve_base_url}", flush=True)
    if settings.auth == "tokens":
        print("  Tokens         asked for; make the first with: tinyclip-server create-token --scope admin", flush=True)
    while (await readiness.check()).status != "ready":  # noqa: ASYNC110 - what it waits for is elsewhere
        await asyncio.sleep(0.2)
    print("ready", flush=True)


async def _keep_running(ray: LocalRay, *, started: bool) -> None:
    """Start the cluster, and again whenever its head has died. Raises RayDidNotStart."""
    if not started:
        await ray.start()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        if not ray.runs():
            logger.error("the Ray head has died; starting it again")
            await ray.start()


async def _settle(settings: Settings) -> None:
    """With no cluster there is no attempt: read what the last ones still wrote, and queue their jobs again."""
    services = build_services(settings)
    try:
        await Scheduler(services).settle()
    finally:
        await services.close()


def _expect_private(settings: Settings) -> None:
    """Where nobody is asked for a token, only this machine may ask. Raises CannotStart."""
    if settings.auth == "tokens" or settings.allow_public or settings.host == "localhost":
        return
    try:
        private = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        private = False
    if not private:
        raise CannotStart(
            f"{settings.host} can be reached from outside, and no token is asked for; set TINYCLIP_AUTH=tokens and make "
            "one with tinyclip-server create-token, or use --host 127.0.0.1, or set TINYCLIP_ALLOW_PUBLIC=1 behind a proxy that "
            "authenticates"
        )
