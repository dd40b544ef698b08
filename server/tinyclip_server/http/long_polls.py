"""Requests that wait for a change of a resource: `If-None-Match` with `?wait=SECONDS`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Query
from sqlalchemy.ext.asyncio import AsyncSession

from tinyclip_server.http.conditions import matches
from tinyclip_server.http.services import Services

INTERVAL_SECONDS = 0.25

Row = TypeVar("Row")
Wait = Annotated[float, Query(ge=0, le=60, description="seconds to wait for a change, with If-None-Match")]


async def wait_for_change(
    services: Services, read: Callable[[AsyncSession], Awaitable[Row]], etag: Callable[[Row], str], if_none_match: str | None,
    seconds: float,
) -> tuple[Row, bool]:  # fmt: skip
    """Read a resource until its ETag differs from that of the request, or the time is up. Return it, and whether it differs.

    Each read has a session of its own, so that no connection waits. Raises as `read`.
    """
    until = time.monotonic() + seconds
    while True:
        async with services.db.read() as session:
            row = await read(session)
        has_changed = not matches(if_none_match, etag(row))
        left = until - time.monotonic()
        if has_changed or left <= 0 or services.stopping.is_set():
            return row, has_changed
        await asyncio.sleep(min(INTERVAL_SECONDS, left))
