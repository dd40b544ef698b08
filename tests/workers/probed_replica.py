"""A deployment's application with a probe of its event loop."""

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from tinyclip_workers.serving.http.application import make_app
from tinyclip_workers.serving.replica.replica import Replica

from tests.load_probe import report_load
from tests.workers.student_server import serving_options


async def serve(artifacts: Path) -> None:
    replica = Replica(serving_options(artifacts))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # before its address is printed
        server = uvicorn.Server(uvicorn.Config(make_app(lambda: replica), log_config=None, lifespan="off"))
        probe = asyncio.create_task(report_load())
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await server.serve(sockets=[listener])
        probe.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
