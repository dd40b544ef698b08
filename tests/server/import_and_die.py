"""Imports a file and is killed at a named point: `python import_and_die.py POINT=DATA_DIR…`, a forked process each."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx
from sqlalchemy.ext.asyncio import AsyncSession
from tinyclip_server.api.app import create_app
from tinyclip_server.backends.artifacts import AsyncArtifactsStore
from tinyclip_server.backends.importer import Importer
from tinyclip_server.models import service
from tinyclip_server.settings import Settings

from tests.server.fakes import InProcessImporter, ScriptedRay


def die_after(owner: Any, name: str, times: int = 1) -> None:
    """Let a coroutine function return, then kill the process."""
    real = getattr(owner, name)
    calls = 0

    async def last(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = await real(*args, **kwargs)
        calls += 1
        if calls == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, last)


async def import_and_die(point: str, data_dir: str) -> None:
    settings = Settings(data_dir=Path(data_dir), database_url=f"sqlite:///{data_dir}/tinyclip.db", ray_address="http://127.0.0.1:1")
    app = create_app(settings, ray=ScriptedRay(), importer=Importer(InProcessImporter()), schedule=False)
    owners: dict[str, tuple[Any, str, int]] = {
        "marked": (AsyncArtifactsStore, "write_bytes", 1),
        "registered": (service, "register", 1),
        "committed": (AsyncSession, "commit", 2),  # without a key the first commit is the reservation's
    }
    die_after(*owners[point])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        headers = {"Content-Type": "application/octet-stream"}
        await http.post("/v1/models/import", params={"name": "emoji"}, content=bytes(range(256)) * 100, headers=headers)


for argument in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        asyncio.run(import_and_die(*argument.split("=", 1)))
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        sys.exit(f"{argument}: it was not killed")
