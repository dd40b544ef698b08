"""A deployment over HTTP in this process: the application that Serve runs, without Serve."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from tinyclip_workers.serving.http.application import make_app
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.replica.replica import Replica

PREFIX = "/demo"


@dataclass
class Served:
    """A replica and the URL of its deployment."""

    replica: Replica
    endpoint: str

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.endpoint, **{"trust_env": False, "timeout": 30, **options})


def serving_options(artifacts: Path, **changes: Any) -> ServingOptions:
    """Return the options of a deployment `demo` of the version student@1 in a store, without a batching window."""
    defaults = {
        "name": "demo", "model": "student@1", "model_uri": str(artifacts / "models/student/1"), "artifacts": str(artifacts),
        "engine": "torch", "batch_wait_s": 0,
    }  # fmt: skip
    return ServingOptions.model_validate(defaults | changes)


@contextlib.contextmanager
def serving(options: ServingOptions) -> Iterator[Served]:
    """Run a deployment in a thread, below a prefix as with Serve."""
    replica = Replica(options)
    with running(make_app(lambda: replica), PREFIX) as url:
        yield Served(replica, url + PREFIX)


@contextlib.contextmanager
def running(app: ASGIApp, prefix: str = "") -> Iterator[str]:
    """Run an application in a thread; yield its address on loopback."""

    async def below_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope | {"root_path": prefix} if scope["type"] == "http" else scope, receive, send)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(below_prefix, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                thread.join(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
