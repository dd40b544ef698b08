"""A server of the API's shape that tests script, answers as it would give them, and the command line in this process."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from tinyclip.cli import main

Cli = Callable[..., "Ran"]
Serve = Callable[[Starlette], "Served"]

class Ran:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `tinyclip-client` in this process, without a terminal."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tinyclip-client", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


class Served:
    """An app behind a real port of this machine, which can go away and come back."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(self._app, port=self.port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Puts an app behind a port, and makes it the command line's server."""
    with contextlib.ExitStack() as stack:

        def start(app: Starlette) -> Served:
            served = Served(app)
            stack.callback(served.stop)
            monkeypatch.setenv("TINYCLIP_URL", served.url)
            return served

        yield start
