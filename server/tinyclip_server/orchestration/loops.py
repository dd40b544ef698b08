"""Background work that is repeated for as long as the server runs."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 10.0


async def repeat(name: str, work: Callable[[], Awaitable[None]], seconds: float, ending: asyncio.Event) -> None:
    """Call `work` with a pause between calls until `ending` is set.

    A call that raises is logged, and the pauses grow until one succeeds.
    """
    pause = seconds
    while not ending.is_set():
        try:
            await work()
            pause = seconds
        except Exception:
            logger.exception("%s: this round failed; the next is in %.1f s", name, min(2 * pause, MAX_BACKOFF_SECONDS))
            pause = min(2 * pause, MAX_BACKOFF_SECONDS)
        await wait(pause, ending)


async def wait(seconds: float, ending: asyncio.Event) -> None:
    """Wait for `seconds`, or until `ending` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ending.wait()
