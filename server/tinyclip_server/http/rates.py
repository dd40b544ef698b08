"""How many requests a minute one caller has. Each server counts for itself, in memory."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from tinyclip_server.problems import TooManyRequests, Unauthorized
from tinyclip_server.settings import Settings

REFUSALS_PER_MINUTE = 60
"""Requests of one address with a bad token; more are answered 429 without a look at the database."""


class Rates:
    """Counts by token, and by address where there is none."""

    def __init__(self, settings: Settings) -> None:
        most = settings.request_limit
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(most) if most else None
        self._refusals = RateLimitItemPerMinute(REFUSALS_PER_MINUTE)

    async def expect(self, who: str) -> None:
        """Count one request. Raises TooManyRequests."""
        if self._requests is not None and not await self._limiter.hit(self._requests, who):
            raise await self._too_many(self._requests, who, "requests with this token")

    @asynccontextmanager
    async def refusals(self, who: str) -> AsyncIterator[None]:
        """Count the requests inside that are refused. Raises TooManyRequests instead of what refused them, after too many."""
        try:
            yield
        except Unauthorized as error:
            if not await self._limiter.hit(self._refusals, who):
                raise await self._too_many(self._refusals, who, "requests without a good token") from error
            raise

    async def _too_many(self, limit: RateLimitItemPerMinute, who: str, what: str) -> TooManyRequests:
        window = await self._limiter.get_window_stats(limit, who)
        wait = max(1, round(window.reset_time - time.time() + 0.5))
        return TooManyRequests(f"more than {limit.amount} {what} a minute; go on in {wait} s", retry_after=wait)
