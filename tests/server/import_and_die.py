"""Imports a file and is killed at a named point: `python import_and_die.py DATA_DIR DATABASE_URL POINT`."""

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
from tinyclip_server.models import service
from tinyclip_server.settings import Settings

from tests.server.fakes import ScriptedRay
from tests.server.service import FAKE_IMPORTER, FAKE_PLANNER


def die_after(owner: Any, name: str, times: int = 1) -> None:
    """Let a coroutine function finish, then be killed."""
    real = getattr(owner, name)
    calls = 0

    async def last(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        answer = await real(*args, **kwargs)
        calls += 1
        if calls == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, last)


async def main(data_dir: str, database_url: str, point: str) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": data_dir, "database_url": database_url, "ray_address": "http://127.0.0.1:1",
            "planner_command": FAKE_PLANNER, "import_command": FAKE_IMPORTER,
        }
    )
    app = create_app(settings, ray=ScriptedRay(), schedule=False)
    owners: dict[str, tuple[Any, str, int]] = {
        "marked": (AsyncArtifactsStore, "write_bytes", 1),
        "registered": (service, "register", 1),
        "committed": (AsyncSession, "commit", 2),  # without a key the first commit is the reservation's
    }
    die_after(*owners[point])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        headers = {"Content-Type": "application/octet-stream"}
        answer = await http.post("/v1/models/import", params={"name": "emoji"}, content=bytes(range(256)) * 100, headers=headers)
        sys.exit(f"it lived on: {answer.text}")


asyncio.run(main(*sys.argv[1:]))
