"""Fixtures of the client's tests: the command line in this process, a server behind a real port, and a clock of their own."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from tinyclip.cli import main

from tests.client.clients import async_client_of, client_of
from tests.ports import free_ports

Cli = Callable[..., "Result"]
Serve = Callable[[Starlette], "LocalServer"]


class Clock:
    """The time of the client, which passes only in its sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.during_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return 1_700_000_000 + self.now

    async def sleep(self, backend: object, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        self.during_sleep()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for backend in ("BlockingBackend", "AsyncBackend"):
        monkeypatch.setattr(f"tinyclip._http.backends.{backend}.sleep", lambda self, seconds: clock.sleep(self, seconds))
    for module in ("tinyclip._http.waiting", "tinyclip._http.retries", "tenacity"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=clock.monotonic, time=clock.wall_time))
    return clock


class Result:
    """The output and the exit code of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `tinyclip-client` in this process, without a terminal."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["tinyclip-client", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        printed = capsys.readouterr()
        return Result(int(exited.value.code or 0), printed.out, printed.err)

    return run


class _Uvicorn(uvicorn.Server):
    """Reports when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class LocalServer:
    """An app behind a port of this machine, which can be stopped and started again."""

    def __init__(self, app: Starlette | None = None) -> None:
        self.app = app
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)

    def start(self) -> None:
        self.stopped = threading.Event()
        config = uvicorn.Config(self, port=self.port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = _Uvicorn(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert self._server.ready.wait(30)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        self.stopped.set()


@pytest.fixture(scope="session")
def local_server() -> Iterator[LocalServer]:
    """One server for all tests that do not stop it."""
    server = LocalServer()
    yield server
    server.stop()


@pytest.fixture
def serve(local_server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves an app and makes it the command line's server."""

    def start(app: Starlette) -> LocalServer:
        local_server.app = app
        monkeypatch.setenv("TINYCLIP_URL", local_server.url)
        return local_server

    return start


@pytest.fixture(params=[client_of, async_client_of], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Any:
    """Returns a client whose requests a function answers; a test that uses it runs for both clients."""
    return request.param


@pytest.fixture
def image_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of three bytes, `AAEC` in base64, in the current folder."""
    (tmp_path / "square.png").write_bytes(b"\x00\x01\x02")
    monkeypatch.chdir(tmp_path)
    return "square.png"
