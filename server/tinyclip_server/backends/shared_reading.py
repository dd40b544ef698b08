"""A value that is read for all callers together."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReading(Generic[T]):
    """The newest value of `read`, at most `max_age_s` old; concurrent callers share one reading. For one event loop."""

    def __init__(self, read: Callable[[], Awaitable[T]], max_age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._max_age_s, self._clock = read, max_age_s, clock
        self._lock = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def get(self) -> T:
        """Return the value. Raises what `read` raises."""
        asked_at = self._clock()
        async with self._lock:
            if self._last is None or self._last[0] < asked_at - self._max_age_s:
                began_at = self._clock()
                self._last = (began_at, await self._read())
            return self._last[1]
