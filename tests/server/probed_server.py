"""`tinyclip-server up` with a probe of its event loop."""

import asyncio
import contextlib
import sys
from pathlib import Path

from tinyclip_server.api.readiness import Readiness
from tinyclip_server.local import supervisor
from tinyclip_server.settings import Settings

from tests.load_probe import report_load

_background: list[asyncio.Task[None]] = []


async def _announce(settings: Settings, readiness: Readiness) -> None:
    _background.append(asyncio.create_task(report_load()))
    await _listening(settings)
    print(f"http://{settings.host}:{settings.port}", flush=True)


async def _listening(settings: Settings) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(settings.host, settings.port)
            writer.close()
            return
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    supervisor._announce = _announce
    supervisor.up(Settings(data_dir=Path(sys.argv[1]), port=0, ray_address="http://127.0.0.1:1"))
