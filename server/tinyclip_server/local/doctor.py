"""`tinyclip-server doctor`: check everything that a server needs, with a hint for each check that does not pass."""

import asyncio
import time
from collections.abc import Awaitable

from tinyclip_server.local.checks import machine, services
from tinyclip_server.local.checks.result import Check, fail
from tinyclip_server.settings import Settings

CHECK_SECONDS = 15.0
RETRY_SECONDS = 1.0


async def examine(settings: Settings) -> list[Check]:
    """Run all checks and return their results in the order of display. Leave nothing behind."""
    checks: list[tuple[str, Awaitable[list[Check]]]] = [
        ("data folder", machine.data_dir(settings)),
        ("data roots", machine.data_roots(settings)),
        ("database", services.database(settings)),
        ("index database", services.index_database(settings)),
        ("ray", services.ray(settings)),
        ("artifacts", services.artifacts(settings)),
        ("versions", machine.versions(settings)),
        ("ports", machine.ports(settings)),
        ("disk", machine.disk(settings)),
    ]
    return [check for found in await asyncio.gather(*(_with_timeout(name, check) for name, check in checks)) for check in found]


async def examine_until_passed(settings: Settings, seconds: float) -> list[Check]:
    """Repeat `examine` until nothing fails, for at most `seconds`."""
    end = time.monotonic() + seconds
    while True:
        checks = await examine(settings)
        if time.monotonic() >= end or not any(check.result == "fail" for check in checks):
            return checks
        await asyncio.sleep(RETRY_SECONDS)


async def _with_timeout(name: str, check: Awaitable[list[Check]]) -> list[Check]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check
    except TimeoutError:
        return [fail(name, f"no answer within {CHECK_SECONDS:g} s", "check its address, and whether a firewall drops packets")]
